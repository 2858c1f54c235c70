"""A cache of some twenty chunks, on disk and behind the faulty S3 server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import shards
from shards.read import Cache
from shards.storage.store import open_store
from tests.shards.conftest import make_cache
from tests.shards.faulty_s3 import Proxy

URL = "s3://bucket/cache"
FIELDS = ("tokens", "head_ids", "head_probs", "tail_mass", "draw_ids", "label_logp", "log_z", "entropy")


def content(cache: Cache, i: int) -> list[bytes]:
    """Return the decoded arrays of chunk i, for comparison."""
    chunk = cache[i]
    return [np.ascontiguousarray(getattr(chunk, name)).tobytes() for name in FIELDS]


@pytest.fixture(scope="session")
def made_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a cache of some twenty chunks that no test may change; `cache_folder` copies it."""
    folder = tmp_path_factory.mktemp("made")
    make_cache(folder, rows=16, chunk_tokens=50)
    return folder


@pytest.fixture
def remote(s3: Proxy, cache_folder: Path) -> Cache:
    """Return the test cache, opened from the S3 server."""
    store = open_store(URL)
    for name in ("000000.arrow", "000001.arrow", "tokenizer/tokenizer.json", "manifest.json"):
        store.put(name, (cache_folder / name).read_bytes())
    s3.misbehave(0)
    return shards.open(URL)

"""Tests that every format version is read and written byte for byte, with golden files.

`python -m tests.shards.test_golden FOLDER` made the files. They never change: a change of the format adds a
new folder.

No counterpart: reading, writing and verifying are tested together, against files of an earlier release.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.format.batch import Row, build_batch
from shards.format.chunk import Chunk
from shards.format.relations import KINDS
from shards.format.schema import FORMAT_VERSIONS, Layout, file_schema
from shards.verify import verify
from shards.write import ShardWriter
from tests.shards.conftest import (
    LAYOUT,
    PARTIAL,
    RELATIONS,
    RESPONSES,
    make_cache,
    make_partial_cache,
    make_relation_cache,
    make_response_cache,
)

GOLDEN = Path(__file__).parent / "golden"
LAYOUTS = {
    "v1": LAYOUT,
    "v2": RESPONSES,
    "v1-relations": replace(LAYOUT, relations=RELATIONS),
    "v1-absent": PARTIAL,
}
"""Layout of the golden cache in each folder."""
ARRAYS = (
    "row_starts",
    "tokens",
    "label_logp",
    "head_starts",
    "head_ids",
    "head_probs",
    "tail_mass",
    "draw_starts",
    "draw_ids",
    "log_z",
    "whitespace_logp",
    "entropy",
)
STORED_NAMES = {"label_logp": "realised_logp"}
"""Keys of expected.json that differ from the names of the arrays."""


def digests(cache: shards.Cache) -> list[dict[str, str]]:
    """Return the sha256 of every decoded array of every chunk."""
    return [{name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in _arrays(chunk)} for chunk in cache]


def _arrays(chunk: Chunk) -> Iterator[tuple[str, Any]]:
    for name in ARRAYS:
        yield STORED_NAMES.get(name, name), getattr(chunk, name)
    if chunk.relations is not None:
        yield "relation_starts", chunk.relations.starts
        yield from zip(KINDS, chunk.relations.vectors(), strict=True)


def as_rows(chunk: Chunk) -> list[Row]:
    """Return the records that are encoded to the codes of a chunk."""
    return [_as_row(chunk.row(r)) for r in range(len(chunk.rows))]


def _as_row(row: Chunk) -> Row:
    return Row(
        info=row.rows[0],
        tokens=row.tokens,
        head_count=np.diff(row.head_starts),
        head_ids=row.head_ids,
        head_probs=row.head_probs,
        draw_count=np.diff(row.draw_starts),
        draw_ids=row.draw_ids,
        label_logp=np.minimum(row.label_logp, 0),
        whitespace_logp=row.whitespace_logp,
        entropy=row.entropy,
        log_z=row.log_z,
        relations=_vectors(row),
    )


def _vectors(row: Chunk) -> Any:
    if row.relations is None or not len(row.relations.codes):
        return None
    return np.concatenate([kind.reshape(len(kind), -1) for kind in row.relations.vectors()], 1)


@pytest.fixture(params=LAYOUTS)
def golden(request: pytest.FixtureRequest) -> Path:
    """Return the folder of each golden cache."""
    return GOLDEN / str(request.param)


@pytest.fixture
def layout(golden: Path) -> Layout:
    """Return the layout of the golden cache."""
    return LAYOUTS[golden.name]


def test_every_version_has_a_golden_cache() -> None:
    assert {layout.version for layout in LAYOUTS.values()} == {*FORMAT_VERSIONS}


def test_the_golden_cache_is_sound_and_decodes_to_the_same_values(layout: Layout, golden: Path) -> None:
    cache = shards.open(golden)
    assert cache.manifest.layout == layout
    assert verify(cache) == []
    assert digests(cache) == json.loads((golden / "expected.json").read_text())


def test_what_was_decoded_is_encoded_to_the_same_streams(layout: Layout, golden: Path) -> None:
    cache = shards.open(golden)
    schema = file_schema(layout, task="000000", fingerprint="f")
    for i, chunk in enumerate(cache):
        batch, row_digests = build_batch(layout, as_rows(chunk), schema)
        stored = pa.ipc.open_file(golden / "000000.arrow").get_batch(i)
        assert batch.schema.equals(stored.schema, check_metadata=True)
        for name in stored.schema.names:
            assert batch.column(name).equals(stored.column(name)), name
        assert row_digests == stored.column("row_sha256").to_pylist()


def test_the_manifest_is_the_same_to_the_last_byte(golden: Path) -> None:
    assert shards.open(golden).manifest.to_bytes() == (golden / "manifest.json").read_bytes()


def test_the_file_is_the_same_to_the_last_byte(layout: Layout, golden: Path, tmp_path: Path) -> None:
    if pa.__version__ != json.loads((golden / "made_with.json").read_text())["pyarrow"]:
        pytest.skip("another pyarrow may compress to other bytes; the streams are compared above")
    writer = ShardWriter(tmp_path, "000000.arrow", layout=layout, task="000000", fingerprint="f", chunk_tokens=60)
    with writer:
        for chunk in shards.open(golden):
            for row in as_rows(chunk):
                writer.write(row)
        writer.close()
    assert (tmp_path / "000000.arrow").read_bytes() == (golden / "000000.arrow").read_bytes()


if __name__ == "__main__":
    folder = GOLDEN / sys.argv[1]
    if folder.exists():
        raise SystemExit(f"{folder} exists already and must not change")
    if LAYOUTS[sys.argv[1]].relations is not None:
        make_relation_cache(folder, shards=1, chunk_tokens=60)
    elif LAYOUTS[sys.argv[1]].has_responses:
        make_response_cache(folder, shards=1, prompts=2, chunk_tokens=60)
    else:
        make = make_partial_cache if LAYOUTS[sys.argv[1]].absent else make_cache
        make(folder, shards=1, rows=4, chunk_tokens=60)
    (folder / "expected.json").write_text(json.dumps(digests(shards.open(folder)), indent=1) + "\n")
    (folder / "made_with.json").write_text(json.dumps({"pyarrow": pa.__version__}) + "\n")

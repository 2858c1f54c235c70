"""Tests of writing a shard: complete or absent, also after a kill and on a full disk."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.commit import read_entry
from shards.errors import StoreError
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_cache, make_row


def test_rows_digest_is_the_content_and_not_the_chunking(tmp_path: Path) -> None:
    make_cache(tmp_path / "a", chunk_tokens=50)
    make_cache(tmp_path / "b", chunk_tokens=5000)
    a, b = shards.open(tmp_path / "a"), shards.open(tmp_path / "b")
    assert len(a) != len(b)
    assert a.manifest.rows_sha256 == b.manifest.rows_sha256
    assert a.manifest_sha256 != b.manifest_sha256
    make_cache(tmp_path / "c", seed=1)
    assert shards.open(tmp_path / "c").manifest.rows_sha256 != a.manifest.rows_sha256


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "a.arrow", layout=LAYOUT, task="a", fingerprint="f", chunk_tokens=10)
    with pytest.raises(RuntimeError), writer:
        writer.write(make_row(np.random.default_rng(0)))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer = ShardWriter(tmp_path, "a.arrow", layout=LAYOUT, task="a", fingerprint="f", chunk_tokens=10)
    with pytest.raises(StoreError, match=r"No space left on device.*free some space"), writer:
        writer.write(make_row(np.random.default_rng(0)))
        writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_complete_shard_or_none(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.shards.conftest import make_cache
        print("ready", flush=True)
        make_cache(Path(sys.argv[1]), shards=50, rows=3, chunk_tokens=60)
        """
    )
    root = Path(__file__).parents[2]
    chances = random.Random(0)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, cwd=root, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(chances.uniform(0.01, 0.6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for shard in folder.glob("*.arrow"):
            pa.ipc.open_file(shard).read_all()
            entry = read_entry(shard)
            assert entry is None or entry.bytes == shard.stat().st_size

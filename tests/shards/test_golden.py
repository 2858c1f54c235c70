"""Tests that format version 1 is read and written byte for byte, with golden files.

`python -m tests.shards.test_golden` made the files. They never change: a change of the format adds a new folder.

No counterpart: reading, writing and verifying are tested together, against files of an earlier release.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.format.batch import Row, build_batch
from shards.format.chunk import Chunk
from shards.format.schema import file_schema
from shards.verify import verify
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_cache

GOLDEN = Path(__file__).parent / "golden" / "v1"
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
    return [
        {STORED_NAMES.get(name, name): hashlib.sha256(getattr(chunk, name).tobytes()).hexdigest() for name in ARRAYS}
        for chunk in cache
    ]


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
    )


def test_the_golden_cache_is_sound_and_decodes_to_the_same_values() -> None:
    cache = shards.open(GOLDEN)
    assert verify(cache) == []
    assert digests(cache) == json.loads((GOLDEN / "expected.json").read_text())


def test_what_was_decoded_is_encoded_to_the_same_streams() -> None:
    cache = shards.open(GOLDEN)
    schema = file_schema(LAYOUT, task="000000", fingerprint="f")
    for i, chunk in enumerate(cache):
        batch, row_digests = build_batch(LAYOUT, as_rows(chunk), schema)
        stored = pa.ipc.open_file(GOLDEN / "000000.arrow").get_batch(i)
        for name in stored.schema.names:
            assert batch.column(name).equals(stored.column(name)), name
        assert row_digests == stored.column("row_sha256").to_pylist()


def test_the_file_is_the_same_to_the_last_byte(tmp_path: Path) -> None:
    if pa.__version__ != json.loads((GOLDEN / "made_with.json").read_text())["pyarrow"]:
        pytest.skip("another pyarrow may compress to other bytes; the streams are compared above")
    writer = ShardWriter(tmp_path, "000000.arrow", layout=LAYOUT, task="000000", fingerprint="f", chunk_tokens=60)
    with writer:
        for chunk in shards.open(GOLDEN):
            for row in as_rows(chunk):
                writer.write(row)
        writer.close()
    assert (tmp_path / "000000.arrow").read_bytes() == (GOLDEN / "000000.arrow").read_bytes()


if __name__ == "__main__":
    if GOLDEN.exists():
        raise SystemExit(f"{GOLDEN} exists already and must not change")
    make_cache(GOLDEN, shards=1, rows=4, chunk_tokens=60)
    (GOLDEN / "expected.json").write_text(json.dumps(digests(shards.open(GOLDEN)), indent=1) + "\n")
    (GOLDEN / "made_with.json").write_text(json.dumps({"pyarrow": pa.__version__}) + "\n")

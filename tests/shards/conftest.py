"""Rows, caches and damage for the tests of the format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from shards.format.batch import Row
from shards.format.chunk import RowInfo
from shards.format.manifest import FileEntry, Manifest, ShardEntry, Teacher, Tokenizer
from shards.format.schema import Layout
from shards.storage.atomic import write_atomic
from shards.write import ShardWriter
from tests.shards.faulty_s3 import s3, s3_server  # noqa: F401 (fixtures)

LAYOUT = Layout(vocab_size=1000, temperatures=(1.5, 2.0), threshold=0.05, tail_floor=2e-3)


def make_row(rng: np.random.Generator, *, tokens: int = 40, layout: Layout = LAYOUT, window: int = 0) -> Row:
    """Return a row of random, valid records: a peaked distribution per position, its head, and draws from the rest."""
    positions = tokens - 1
    vocab = layout.vocab_size
    ids = rng.integers(0, vocab, tokens, dtype=np.int32)
    heads, probs, draws, counts, draw_counts = [], [], [], [], []
    realised = np.empty(positions, np.float32)
    for p in range(positions):
        logits = rng.normal(0, rng.choice([1.0, 3.0, 6.0]), vocab)
        t = np.exp(logits - logits.max())
        t /= t.sum()
        order = np.argsort(-t, kind="stable")
        kept = max(1, int((t >= layout.threshold).sum()))
        heads.append(order[:kept])
        probs.append(t[order[:kept]])
        rest = 1 - t[order[:kept]].sum()
        wanted = int(np.ceil(rest / layout.threshold)) if rest >= layout.tail_floor else 0
        others = t.copy()
        others[order[:kept]] = 0
        draws.append(np.sort(rng.choice(vocab, wanted, p=others / others.sum())) if wanted else np.empty(0, np.int64))
        counts.append(kept)
        draw_counts.append(wanted)
        realised[p] = np.log(t[ids[p + 1]])
    return Row(
        info=RowInfo(
            document=hashlib.sha256(rng.bytes(8)).hexdigest(),
            window=window,
            byte_start=0,
            byte_end=3 * positions,
            source="a/repository",
            path="folder/file.py",
            licence="MIT",
        ),
        tokens=ids,
        head_count=np.array(counts),
        head_ids=np.concatenate(heads).astype(np.int32),
        head_probs=np.concatenate(probs).astype(np.float32),
        draw_count=np.array(draw_counts),
        draw_ids=np.concatenate(draws).astype(np.int32),
        label_logp=realised,
        whitespace_logp=np.log(rng.random(positions)).astype(np.float32),
        entropy=(rng.random(positions) * 6).astype(np.float32),
        log_z=(rng.random((positions, len(layout.temperatures))) * 5).astype(np.float32),
    )


def make_cache(folder: Path, *, shards: int = 2, rows: int = 6, chunk_tokens: int = 100, seed: int = 0) -> list[Row]:
    """Write a complete small cache and return its rows in order."""
    rng = np.random.default_rng(seed)
    written: list[Row] = []
    entries: list[ShardEntry] = []
    for number in range(shards):
        writer = ShardWriter(
            folder,
            f"{number:06d}.arrow",
            layout=LAYOUT,
            task=f"{number:06d}",
            fingerprint="f",
            chunk_tokens=chunk_tokens,
        )
        with writer:
            for _ in range(rows):
                row = make_row(rng, tokens=int(rng.integers(8, 60)))
                writer.write(row)
                written.append(row)
            entries.append(writer.close())
    tokenizer = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}).encode()
    write_atomic(folder / "tokenizer" / "tokenizer.json", tokenizer)
    file = FileEntry(
        name="tokenizer/tokenizer.json", bytes=len(tokenizer), sha256=hashlib.sha256(tokenizer).hexdigest()
    )
    write_atomic(folder / "manifest.json", make_manifest(tuple(entries), (file,)).to_bytes())
    return written


def make_manifest(entries: tuple[ShardEntry, ...], files: tuple[FileEntry, ...] = ()) -> Manifest:
    """Return a manifest for shards of the test layout."""
    return Manifest(
        layout=LAYOUT,
        teacher=Teacher(
            name="test",
            repo="test/teacher",
            revision="1",
            weights_sha256="0" * 64,
            licence="apache-2.0",
            restricts_outputs=False,
            vocab_size=LAYOUT.vocab_size,
            parameters=1,
        ),
        tokenizer=Tokenizer(fingerprint="t", vocab_size=LAYOUT.vocab_size, prefix_tokens=(0,)),
        engine={"name": "test"},
        corpus={"source": "test"},
        settings={"seed": 0},
        code={},
        files=files,
        shards=entries,
    )


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    """Return the folder of a complete cache of 2 shards."""
    make_cache(tmp_path / "cache")
    return tmp_path / "cache"

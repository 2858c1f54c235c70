"""Rows, caches and damage for the tests of the format."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.format.batch import Row
from shards.format.chunk import RowInfo
from shards.format.manifest import FileEntry, Manifest, ShardEntry, Teacher, Tokenizer, Writer
from shards.format.messages import messages_json, messages_sha256
from shards.format.relations import RelationLayout
from shards.format.schema import RESPONSES_VERSION, Layout
from shards.storage.atomic import write_atomic
from shards.write import ShardWriter
from tests.shards.fake_hub import hub  # noqa: F401 (a fixture)
from tests.shards.faulty_s3 import s3, s3_server  # noqa: F401 (fixtures)

LAYOUT = Layout(vocab_size=1000, temperatures=(1.5, 2.0), threshold=0.05, tail_floor=2e-3)


RESPONSES = replace(LAYOUT, version=RESPONSES_VERSION)
"""The same layout for rows with a context."""
RELATIONS = RelationLayout(layer=3, heads=2, widths=(6, 4, 3), dims=4, seed=7)
"""Relations of two heads: queries are projected, keys and values are not."""
PARTIAL = replace(LAYOUT, temperatures=(), absent=("draws", "entropy", "realised", "whitespace"))
"""A layout of imported records, of which only heads and tails are stored."""
_NO_IDS = np.empty(0, np.int64)
WRITER = Writer(
    name="student",
    revision="step 100",
    weights_sha256="1" * 64,
    tokenizer="t",
    temperature=0.8,
    top_p=0.95,
    max_new_tokens=64,
    seed=0,
)


def make_row(
    rng: np.random.Generator, *, tokens: int = 40, layout: Layout = LAYOUT, window: int = 0, context: int = 1
) -> Row:
    """Return a row of random, valid records: a peaked distribution per position, its head, and draws from the rest."""
    positions = tokens - context
    vocab = layout.vocab_size
    ids = rng.integers(0, vocab, tokens, dtype=np.int32)
    heads, probs, draws, counts, draw_counts = [_NO_IDS], [np.empty(0)], [_NO_IDS], [], []
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
        draws.append(np.sort(rng.choice(vocab, wanted, p=others / others.sum())) if wanted else _NO_IDS)
        counts.append(kept)
        draw_counts.append(wanted)
        realised[p] = np.log(t[ids[p + context]])
    return Row(
        info=RowInfo(
            document=hashlib.sha256(rng.bytes(8)).hexdigest(),
            window=window,
            byte_start=0,
            byte_end=3 * positions,
            source="a/repository",
            path="folder/file.py",
            licence="MIT",
            context=context,
        ),
        tokens=ids,
        head_count=np.array(counts, np.int64),
        head_ids=np.concatenate(heads).astype(np.int32),
        head_probs=np.concatenate(probs).astype(np.float32),
        draw_count=np.array(draw_counts, np.int64),
        draw_ids=np.concatenate(draws).astype(np.int32),
        label_logp=realised,
        whitespace_logp=np.log(rng.random(positions)).astype(np.float32),
        entropy=(rng.random(positions) * 6).astype(np.float32),
        log_z=(rng.random((positions, len(layout.temperatures))) * 5).astype(np.float32),
    )


def make_responses(rng: np.random.Generator, *, samples: int = 3) -> list[Row]:
    """Return rows of random records: several responses to one random prompt, one of them empty."""
    system = {"role": "system", "content": "R\u00e9ponds en Python \U0001f40d.\n"}
    asked = messages_json([system, {"role": "user", "content": f'Write "{rng.integers(10**6)}".'}])
    context = int(rng.integers(2, 30))
    rows = []
    for window in range(samples):
        response = 0 if window == 1 else int(rng.integers(1, 40))
        row = make_row(rng, tokens=context + response, layout=RESPONSES, window=window, context=context)
        rows.append(replace(row, info=replace(row.info, document=messages_sha256(asked), messages=asked)))
    return rows


def make_response_cache(folder: Path, *, shards: int = 2, prompts: int = 4, chunk_tokens: int = 100) -> list[Row]:
    """Write a complete small cache of format version 2 and return its rows in order.

    The last two rows of a shard have no messages: a context alone, and a window of a document.
    """
    rng = np.random.default_rng(0)

    def shard() -> list[Row]:
        responses = [row for _ in range(prompts) for row in make_responses(rng)]
        return responses + [make_row(rng, tokens=12, layout=RESPONSES, context=context) for context in (5, 1)]

    parts = (shard() for _ in range(shards))
    return _write_cache(folder, parts, RESPONSES, chunk_tokens)


def make_relation_cache(folder: Path, *, version: int = 1, shards: int = 2, chunk_tokens: int = 100) -> list[Row]:
    """Write a complete small cache of which every second row has relations, and return its rows in order."""
    rng = np.random.default_rng(0)
    layout = replace(LAYOUT if version == 1 else RESPONSES, relations=RELATIONS)

    def shard() -> list[Row]:
        rows = [make_row(rng, tokens=int(rng.integers(8, 30))) for _ in range(5)]
        if version == RESPONSES_VERSION:
            rows = [row for _ in range(2) for row in make_responses(rng)]
        return [with_random_vectors(row, rng) if r % 2 else row for r, row in enumerate(rows)]

    return _write_cache(folder, (shard() for _ in range(shards)), layout, chunk_tokens)


def with_random_vectors(row: Row, rng: np.random.Generator) -> Row:
    """Return a row with relations of all sizes, among them vectors of zeros."""
    sizes = np.exp(rng.normal(0, 2, (len(row.labels), 1)))
    vectors = (sizes * rng.normal(size=(len(row.labels), RELATIONS.numbers))).astype(np.float32)
    vectors[:1] = 0
    return replace(row, relations=vectors)


def make_cache(folder: Path, *, shards: int = 2, rows: int = 6, chunk_tokens: int = 100, seed: int = 0) -> list[Row]:
    """Write a complete small cache and return its rows in order."""
    rng = np.random.default_rng(seed)
    parts = ([make_row(rng, tokens=int(rng.integers(8, 60))) for _ in range(rows)] for _ in range(shards))
    return _write_cache(folder, parts, LAYOUT, chunk_tokens)


def make_partial_cache(folder: Path, *, shards: int = 2, rows: int = 6, chunk_tokens: int = 100) -> list[Row]:
    """Write a complete small cache that lacks parts of the records, and return its rows in order."""
    rng = np.random.default_rng(0)
    parts = ([_partial(make_row(rng, tokens=int(rng.integers(8, 60)))) for _ in range(rows)] for _ in range(shards))
    return _write_cache(folder, parts, PARTIAL, chunk_tokens)


def _partial(row: Row) -> Row:
    """Return a row without the parts that `PARTIAL` lacks."""
    unknown = np.full(len(row.entropy), np.nan, np.float32)
    return replace(
        row,
        draw_count=np.zeros_like(row.draw_count),
        draw_ids=row.draw_ids[:0],
        label_logp=unknown,
        whitespace_logp=unknown,
        entropy=unknown,
        log_z=row.log_z[:, :0],
    )


def _write_cache(folder: Path, parts: Iterable[list[Row]], layout: Layout, chunk_tokens: int) -> list[Row]:
    written: list[Row] = []
    entries: list[ShardEntry] = []
    for number, rows in enumerate(parts):
        writer = ShardWriter(
            folder,
            f"{number:06d}.arrow",
            layout=layout,
            task=f"{number:06d}",
            fingerprint="f",
            chunk_tokens=chunk_tokens,
        )
        with writer:
            for row in rows:
                writer.write(row)
                written.append(row)
            entries.append(writer.close())
    tokenizer = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}).encode()
    write_atomic(folder / "tokenizer" / "tokenizer.json", tokenizer)
    file = FileEntry(
        name="tokenizer/tokenizer.json", bytes=len(tokenizer), sha256=hashlib.sha256(tokenizer).hexdigest()
    )
    write_atomic(folder / "manifest.json", make_manifest(tuple(entries), (file,), layout).to_bytes())
    return written


def make_manifest(
    entries: tuple[ShardEntry, ...], files: tuple[FileEntry, ...] = (), layout: Layout = LAYOUT
) -> Manifest:
    """Return a manifest for shards of a test layout."""
    return Manifest(
        layout=layout,
        writer=WRITER if layout.has_responses else None,
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


@pytest.fixture(scope="session")
def made_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a complete cache of 2 shards that no test may change."""
    folder = tmp_path_factory.mktemp("made")
    make_cache(folder)
    return folder


@pytest.fixture
def cache_folder(made_cache: Path, tmp_path: Path) -> Path:
    """Return the folder of a complete cache of 2 shards."""
    return Path(shutil.copytree(made_cache, tmp_path / "cache"))


@pytest.fixture
def relation_folder(tmp_path: Path) -> Path:
    """Return the folder of a complete cache with relations."""
    make_relation_cache(tmp_path / "relations")
    return tmp_path / "relations"


@pytest.fixture(scope="session")
def made_responses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a complete cache of format version 2 that no test may change."""
    folder = tmp_path_factory.mktemp("made")
    make_response_cache(folder)
    return folder


@pytest.fixture
def response_folder(made_responses: Path, tmp_path: Path) -> Path:
    """Return the folder of a complete cache of format version 2 with 2 shards."""
    return Path(shutil.copytree(made_responses, tmp_path / "responses"))

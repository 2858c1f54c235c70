"""Records of each method, all written as real shards.

All use one codec, so that bytes are comparable: tokens, realised log-probability, whitespace mass, entropy and three
log Z are in every file, and only head and draws differ.

draws   threshold head and systematic draws, as `teacher-dump` records them (amount: the threshold c)
sampled RS-KD (Anshumann et al. 2025): N independent draws with replacement, no head (amount: N)
top     the k most likely ids with their probabilities, no draws (amount: k)

Draws are fixed, as in any cache: a counter-based generator with the key (document, window, seed) makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.teacher import Taught
from shards.commit import read_entry
from shards.format.batch import Row, decode_chunk
from shards.format.chunk import Chunk
from shards.format.manifest import ShardEntry
from shards.format.schema import Layout
from shards.write import ShardWriter
from teacher_dump.engines.records import RecordSpec, draw_offsets, to_row
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.tasks.windowing import Window

CHUNK_TOKENS = 65_536
SEED = 0
"""Seed of the draws."""
NOT_EXPECTED = 1.0
"""Tail floor at which the codec expects no draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A kind of record and its size."""

    kind: str
    """`draws`, `sampled` or `top`."""
    amount: float
    """c, N or k."""

    @property
    def name(self) -> str:
        """Return the name of its shard."""
        return f"{self.kind}-{self.amount:g}.arrow"

    @property
    def spec(self) -> RecordSpec:
        """Return the settings of `sparsify`."""
        return RecordSpec(threshold=self.amount) if self.kind == "draws" else RecordSpec()

    def layout(self, vocab_size: int) -> Layout:
        """Return the layout of its shard."""
        threshold, floor = self.spec.threshold, self.spec.tail_floor
        if self.kind == "sampled":
            threshold = 1.0 / self.amount
        elif self.kind == "top":
            floor = NOT_EXPECTED
        return Layout(vocab_size=vocab_size, temperatures=self.spec.temperatures, threshold=threshold, tail_floor=floor)


BASE = Record(kind="draws", amount=0.04)
"""The record that supplies the fields common to all records."""


def write(
    records: Iterable[Record], taught: Taught, folder: Path, whitespace_V: torch.Tensor, tell: Callable[[str], None]
) -> None:
    """Write the missing shards of `records` in one pass over the teacher's logits."""
    missing = [record for record in dict.fromkeys(records) if read_entry(folder / record.name) is None]
    missing.sort(key=lambda record: record.kind != "draws")
    if not missing:
        return
    vocab_size = len(taught.weight)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                ShardWriter(
                    folder,
                    record.name,
                    layout=record.layout(vocab_size),
                    task="quality",
                    fingerprint="quality",
                    chunk_tokens=CHUNK_TOKENS,
                )
            )
            for record in missing
        ]
        for i, window in enumerate(taught.windows):
            logits_PV = taught.logits(i)
            drawn = [_drawn(window, logits_PV, r, whitespace_V) for r in missing if r.kind == "draws"]
            base = drawn[0] if drawn else _drawn(window, logits_PV, BASE, whitespace_V)
            others = [_kept(window, logits_PV, r, base) for r in missing if r.kind != "draws"]
            for row, writer in zip(drawn + others, writers, strict=True):
                writer.write(row)
            if i % 50 == 49:
                tell(f"records: {i + 1} of {len(taught.windows)} windows, {len(missing)} records")
        for writer in writers:
            writer.close()


def read(record: Record, folder: Path, vocab_size: int) -> tuple[list[Chunk], ShardEntry]:
    """Return the rows of a shard in the order of the windows, and its entry."""
    path = folder / record.name
    entry = read_entry(path)
    assert entry is not None, path
    rows: list[Chunk] = []
    with path.open("rb") as file:
        for chunk in entry.chunks:
            file.seek(chunk.offset)
            found = decode_chunk(record.layout(vocab_size), file.read(chunk.length), where=record.name, entry=chunk)
            rows += [found.row(r) for r in range(len(found.rows))]
    return rows, entry


def entries(rows: list[Chunk]) -> float:
    """Return the mean number of distinct ids that a position keeps."""
    distinct = positions = 0
    for row in rows:
        owner = np.repeat(np.arange(len(row.draw_starts) - 1), np.diff(row.draw_starts))
        distinct += len(row.head_ids) + len(np.unique(owner << 32 | row.draw_ids))
        positions += len(row.tail_mass)
    return distinct / positions


def _kept(window: Window, logits_PV: torch.Tensor, record: Record, base: Row) -> Row:
    """Return `base` with another head and other draws."""
    count = len(logits_PV)
    none = np.zeros(count, np.int64)
    if record.kind == "top":
        probs_PK, ids_PK = torch.softmax(logits_PV, 1).topk(int(record.amount), dim=1)
        return replace(
            base,
            head_count=none + int(record.amount),
            head_ids=ids_PK.int().numpy().ravel(),
            head_probs=probs_PK.numpy().ravel(),
            draw_count=none,
            draw_ids=np.zeros(0, np.int32),
        )
    number = int(record.amount)
    u_PN = draw_offsets(window.info.document, window.info.window, SEED, count * number).reshape(count, number)
    cumulative_PV = torch.softmax(logits_PV, 1).double().cumsum_(1)
    points_PN = torch.from_numpy(np.sort(u_PN, axis=1)) * cumulative_PV[:, -1:]
    ids_PN = torch.searchsorted(cumulative_PV, points_PN, right=True)
    return replace(
        base,
        head_count=none,
        head_ids=np.zeros(0, np.int32),
        head_probs=np.zeros(0, np.float32),
        draw_count=none + number,
        draw_ids=ids_PN.int().numpy().ravel(),
    )


def _drawn(window: Window, logits_PV: torch.Tensor, record: Record, whitespace_V: torch.Tensor) -> Row:
    next_ids = torch.from_numpy(window.tokens[1:].astype(np.int64))
    u = torch.from_numpy(draw_offsets(window.info.document, window.info.window, SEED, len(next_ids)))
    found = sparsify(logits_PV, next_ids, u, spec=record.spec, whitespace_V=whitespace_V)
    return to_row(window, found.pack().numpy(), record.spec)

"""Layouts of other systems for the same records, written from their descriptions.

Each layout stores the distributions of a window and returns the estimate that a trainer gets from them (`observe`). It
serialises everything that it stored (`pack`) and reads it back (`unpack`).
"""

from __future__ import annotations

import io
import math
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard

from shards.format.batch import Row, build_batch, decode_chunk
from shards.format.chunk import Chunk
from shards.format.schema import Layout as ShardLayout
from shards.format.schema import file_schema
from shards.write import ZSTD_LEVEL
from teacher_dump.engines.records import RecordSpec, to_row
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.tasks.windowing import Window

Estimate = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(position [n], id [n], weight [n]) of the entries of an estimate of the distribution."""


class Layout(Protocol):
    """A way to store records."""

    name: str
    keeps: str
    """What it stores beside the distribution."""

    def observe(self, window: Window, logits: torch.Tensor, t: np.ndarray, u: np.ndarray) -> Estimate:
        """Store a window and return the estimate; `t` float64 [P, V], `u` float64 [P] are the sampling offsets."""

    def redraw(self, logits: torch.Tensor, t: np.ndarray, rng: np.random.Generator) -> Estimate:
        """Return another estimate of some positions, with fresh randomness."""

    def pack(self) -> bytes:
        """Serialise everything that was stored."""

    def unpack(self, raw: bytes) -> Any:
        """Return the stored records as arrays that a trainer can use."""


class Ours:
    """This project's format: threshold head, systematic draws, every field of docs/format.md, the tokens."""

    keeps = "tokens, log Z, entropy, realised, provenance, digests"

    def __init__(self, threshold: float, vocab_size: int, whitespace: torch.Tensor) -> None:
        self.name = f"ours, c = {threshold:g}"
        self.spec = RecordSpec(threshold=threshold)
        self.layout = ShardLayout(
            vocab_size=vocab_size,
            temperatures=self.spec.temperatures,
            threshold=threshold,
            tail_floor=self.spec.tail_floor,
        )
        self.rows: list[Row] = []
        self._whitespace = whitespace
        self._schema = file_schema(self.layout, task="benchmark", fingerprint="benchmark")

    def observe(self, window: Window, logits: torch.Tensor, t: np.ndarray, u: np.ndarray) -> Estimate:
        """Store a window and return the estimate."""
        self.rows.append(self._row(window, logits, u))
        return self._estimate(self.decoded(self.rows[-1]))

    def redraw(self, logits: torch.Tensor, t: np.ndarray, rng: np.random.Generator) -> Estimate:
        """Return another estimate with fresh randomness."""
        last = self.rows[-1]
        window = Window(info=last.info, tokens=np.zeros(len(t) + 1, np.int32))
        return self._estimate(self.decoded(self._row(window, logits, rng.random(len(t)))))

    def decoded(self, row: Row) -> Chunk:
        """Return a row after a round trip through the format."""
        batch, _ = build_batch(self.layout, [row], self._schema)
        return decode_chunk(self.layout, batch.serialize().to_pybytes(), where="benchmark")

    def pack(self) -> bytes:
        """Serialise everything that was stored."""
        batch, _ = build_batch(self.layout, self.rows, self._schema)
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
        with pa.ipc.new_file(sink, self._schema, options=options) as writer:
            writer.write_batch(batch)
        return sink.getvalue()

    def unpack(self, raw: bytes) -> Any:
        """Return the stored records as arrays."""
        start = 8 + len(self._schema.serialize())
        return decode_chunk(self.layout, raw[start:], where="benchmark")

    def _row(self, window: Window, logits: torch.Tensor, u: np.ndarray) -> Row:
        next_ids = torch.from_numpy(window.tokens[1:].astype(np.int64))
        records = sparsify(logits, next_ids, torch.from_numpy(u), spec=self.spec, whitespace_V=self._whitespace)
        return to_row(window, records.pack().numpy(), self.spec)

    def _estimate(self, chunk: Chunk) -> Estimate:
        heads, draws = np.diff(chunk.head_starts), np.diff(chunk.draw_starts)
        positions = np.arange(len(heads))
        weight = np.repeat(chunk.tail_mass.astype(np.float64) / np.maximum(draws, 1), draws)
        return (
            np.concatenate((np.repeat(positions, heads), np.repeat(positions, draws))),
            np.concatenate((chunk.head_ids, chunk.draw_ids)),
            np.concatenate((chunk.head_probs.astype(np.float64), weight)),
        )


class Sampled:
    """RS-KD (arXiv 2503.16870): N independent draws, 17 bits of id and 7 of count an entry. No tokens."""

    keeps = "nothing else"

    def __init__(self, draws: int) -> None:
        self.name = f"RS-KD, N = {draws}"
        self._n = draws
        self._rng = np.random.default_rng(0)
        self._counts: list[np.ndarray] = []
        self._entries: list[np.ndarray] = []

    def observe(self, window: Window, logits: torch.Tensor, t: np.ndarray, u: np.ndarray) -> Estimate:
        """Store a window and return the estimate."""
        position, ids, weight = self.redraw(logits, t, self._rng)
        self._counts.append(np.bincount(position, minlength=len(t)).astype(np.uint8))
        self._entries.append((ids << 7 | np.rint(weight * self._n).astype(np.int64).clip(max=127)).astype(np.uint32))
        return position, ids, weight

    def redraw(self, logits: torch.Tensor, t: np.ndarray, rng: np.random.Generator) -> Estimate:
        """Return another estimate with fresh randomness."""
        cumulative = np.cumsum(t, 1)
        ids = np.stack([np.searchsorted(c, rng.random(self._n) * c[-1], side="right") for c in cumulative])
        keys, times = np.unique(np.arange(len(t))[:, None] * t.shape[1] + ids, return_counts=True)
        return keys // t.shape[1], keys % t.shape[1], times / self._n

    def pack(self) -> bytes:
        """Serialise everything that was stored."""
        counts, entries = np.concatenate(self._counts), np.concatenate(self._entries)
        planes = entries.view(np.uint8).reshape(-1, 4)[:, :3]
        payload: bytes = len(counts).to_bytes(8, "little") + counts.tobytes() + planes.tobytes()
        return payload

    def unpack(self, raw: bytes) -> Any:
        """Return the stored records as arrays."""
        n = int.from_bytes(raw[:8], "little")
        counts = np.frombuffer(raw, np.uint8, n, 8)
        planes = np.frombuffer(raw, np.uint8, offset=8 + n).reshape(-1, 3).astype(np.uint32)
        entries = planes[:, 0] | planes[:, 1] << 8 | planes[:, 2] << 16
        return np.cumsum(counts, dtype=np.int64), (entries >> 7).astype(np.int32), (entries & 127) / np.float32(self._n)


class TopK:
    """The k most likely ids with float16 log-probs in fixed-size Arrow lists under zstd, renormalised for training."""

    keeps = "nothing else"
    renormalise = True

    def __init__(self, k: int) -> None:
        self.name = f"plain top {k}, renormalised"
        self.k = k
        self.ids: list[np.ndarray] = []
        self.log_probs: list[np.ndarray] = []

    def observe(self, window: Window, logits: torch.Tensor, t: np.ndarray, u: np.ndarray) -> Estimate:
        """Store a window and return the estimate."""
        ids, probs = top(t, self.k)
        self.ids.append(ids)
        self.log_probs.append(np.log(np.maximum(probs, 1e-30)).astype(np.float32))
        return self._estimate(ids, self.kept(self.log_probs[-1]))

    def redraw(self, logits: torch.Tensor, t: np.ndarray, rng: np.random.Generator) -> Estimate:
        """Return another estimate with fresh randomness."""
        ids, probs = top(t, self.k)
        return self._estimate(ids, self.kept(np.log(np.maximum(probs, 1e-30)).astype(np.float32)))

    def kept(self, log_probs: np.ndarray) -> np.ndarray:
        """Return the probabilities that a trainer sees."""
        probs = np.exp(log_probs.astype(np.float16).astype(np.float64))
        return probs / probs.sum(1, keepdims=True) if self.renormalise else probs

    def _estimate(self, ids: np.ndarray, probs: np.ndarray) -> Estimate:
        return np.repeat(np.arange(len(ids)), ids.shape[1]), ids.ravel(), probs.ravel()

    def pack(self) -> bytes:
        """Serialise everything that was stored."""
        ids, log_probs = np.concatenate(self.ids), np.concatenate(self.log_probs).astype(np.float16)
        columns = [
            pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), self.k) for a in (ids.astype(np.uint16), log_probs)
        ]
        batch = pa.RecordBatch.from_arrays(columns, ["ids", "log_probs"])
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        return sink.getvalue()

    def unpack(self, raw: bytes) -> Any:
        """Return the stored records as arrays."""
        batch = pa.ipc.open_file(pa.py_buffer(raw)).get_batch(0)
        ids, log_probs = (c.values.to_numpy().reshape(-1, self.k) for c in batch.columns)
        return ids.astype(np.int32), log_probs.astype(np.float32)


class Megatron(TopK):
    """Offline logits of Megatron-LM: 2 bytes of value, 2 of id, 1 for bit 17, zstd level 3; the tail is one bucket."""

    renormalise = False

    def __init__(self, k: int) -> None:
        super().__init__(k)
        self.name = f"Megatron, k = {k}, bucket"

    def pack(self) -> bytes:
        """Serialise everything that was stored."""
        ids, log_probs = np.concatenate(self.ids), np.concatenate(self.log_probs).astype(np.float16)
        raw = log_probs.tobytes() + ids.astype(np.uint16).tobytes() + (ids >> 16).astype(bool).tobytes()
        compressed: bytes = zstandard.ZstdCompressor(level=3).compress(raw)
        return compressed

    def unpack(self, raw: bytes) -> Any:
        """Return the stored records as arrays."""
        data = zstandard.ZstdDecompressor().decompress(raw)
        n = len(data) // 5
        values, low = np.frombuffer(data, np.float16, n), np.frombuffer(data, np.uint16, n, 2 * n)
        high = np.frombuffer(data, np.uint8, n, 4 * n)
        return values.astype(np.float32).reshape(-1, self.k), (low | high.astype(np.int32) << 16).reshape(-1, self.k)


class DistillKit(TopK):
    """DistillKit's layout: packed ids, the first values in bfloat16, the others as coefficients of a curve.

    Ids take ceil(log2 V) bits. The first `exact` values are bfloat16; `terms` float32 coefficients of a polynomial in
    the rank give the others. Parquet with nested lists of bytes. Renormalised for training.
    """

    def __init__(self, k: int, exact: int, terms: int, vocab_size: int) -> None:
        super().__init__(k)
        self.name = f"DistillKit, k = {k}"
        self._exact = exact
        self._bits = math.ceil(math.log2(vocab_size))
        rank = np.linspace(0, 1, k - exact)
        self._basis = np.stack([np.sqrt(rank) if d == 1 else rank ** max(0, d - 1) for d in range(terms)], 1)
        self._solve = np.linalg.pinv(self._basis)

    def kept(self, log_probs: np.ndarray) -> np.ndarray:
        """Return the probabilities that a trainer gets."""
        first = _bfloat16(log_probs[:, : self._exact])
        curve = (log_probs[:, self._exact :] @ self._solve.T).astype(np.float32) @ self._basis.T
        probs = np.exp(np.concatenate((first, curve), 1).clip(max=0).astype(np.float64))
        normalised: np.ndarray = probs / probs.sum(1, keepdims=True)
        return normalised

    def pack(self) -> bytes:
        """Serialise everything that was stored."""
        ids, log_probs = np.concatenate(self.ids), np.concatenate(self.log_probs)
        exact = (log_probs[:, : self._exact].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        curve = (log_probs[:, self._exact :] @ self._solve.T).astype(np.float32)
        values = np.concatenate((exact.view(np.uint8), curve.view(np.uint8)), 1)
        bits = (ids[:, :, None] >> np.arange(self._bits) & 1).astype(np.uint8)
        packed = np.packbits(bits.reshape(len(ids), -1), axis=1, bitorder="little")
        starts = np.append(0, np.cumsum([len(i) for i in self.ids])).astype(np.int32)
        columns = {}
        for name, data in (("compressed_logprobs", values), ("bytepacked_indices", packed)):
            inner = pa.ListArray.from_arrays(
                pa.array(np.arange(0, data.size + 1, data.shape[1], dtype=np.int32)), pa.array(data.ravel())
            )
            columns[name] = pa.ListArray.from_arrays(pa.array(starts), inner)
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue()

    def unpack(self, raw: bytes) -> Any:
        """Read as the library does: nested Python lists, then arrays."""
        table = pq.read_table(pa.BufferReader(raw))
        values = np.array([p for row in table["compressed_logprobs"].to_pylist() for p in row], np.uint8)
        packed = np.array([p for row in table["bytepacked_indices"].to_pylist() for p in row], np.uint8)
        bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : self.k * self._bits]
        ids = bits.reshape(len(packed), self.k, self._bits).astype(np.int32) @ (1 << np.arange(self._bits))
        return ids.astype(np.int32), values


def top(t: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and probabilities [P, k] of the k most likely ids, in falling order."""
    ids = np.argpartition(-t, k, axis=1)[:, :k]
    probs = np.take_along_axis(t, ids, 1)
    order = np.argsort(-probs, axis=1)
    return np.take_along_axis(ids, order, 1), np.take_along_axis(probs, order, 1)


def _bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)

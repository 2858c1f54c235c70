"""Which work exists? Windows become tasks; a task is named by its inputs and its name is its shard's.

Also: what would it cost? `estimate` answers before anything is loaded or fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from teacher_dump.config import DumpConfig
from teacher_dump.corpus import THE_STACK_FACTS, Corpus, is_hub_id
from teacher_dump.engines import choose
from teacher_dump.models import THE_STACK, Known, known
from teacher_dump.windows import Window

H100_FLOPS = 989e12
"""Dense bfloat16 peak of an H100 SXM, FLOP/s (NVIDIA's data sheet)."""
PREFILL_USE = 0.5
"""Share of the peak that prefill reaches: an assumption, to be replaced by a measurement of your machine."""
CPU_FLOPS_PER_CORE = 32e9
"""float32 FLOP/s of a core: SmolLM2-135M prefills about 240 tokens/s on two cores."""
BYTES_PER_TOKEN = 25.0
"""On disk at threshold 0.04 with a flat teacher; sharper teachers need less (docs/benchmarks)."""


SHUFFLE_WINDOWS = 32_768
"""Windows that are shuffled at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A shard to be."""

    name: str
    """File name: place in the order, and digest of what goes in."""
    windows: tuple[Window, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens, prefix included."""
        return sum(len(w.tokens) for w in self.windows)


def tasks(
    windows: Iterable[Window], *, task_tokens: int, fingerprint: str, max_tokens: int | None = None
) -> Iterator[Task]:
    """Yield tasks of about `task_tokens` tokens each, a pure function of the arguments."""
    group: list[Window] = []
    in_group = total = number = 0
    for window in windows:
        if len(window.tokens) < 2:
            continue
        group.append(window)
        in_group += len(window.tokens)
        total += len(window.tokens)
        full = max_tokens is not None and total >= max_tokens
        if in_group >= task_tokens or full:
            yield _task(number, group, fingerprint)
            group, in_group, number = [], 0, number + 1
        if full:
            return
    if group:
        yield _task(number, group, fingerprint)


def shuffled(windows: Iterable[Window], seed: int) -> Iterator[Window]:
    """Yield windows by a seeded hash of document and number, so that a chunk is a sample of many documents."""
    windows = iter(windows)
    while block := list(islice(windows, SHUFFLE_WINDOWS)):
        block.sort(key=lambda w: hashlib.sha256(f"{seed}/{w.info.document}/{w.info.window}".encode()).digest())
        yield from block


def _task(number: int, windows: list[Window], fingerprint: str) -> Task:
    digest = hashlib.sha256(fingerprint.encode())
    for window in windows:
        digest.update(f"{window.info.document} {window.info.window} {len(window.tokens)}\n".encode())
    return Task(name=f"{number:06d}-{digest.hexdigest()[:12]}.arrow", windows=tuple(windows))


def estimate(config: DumpConfig) -> dict[str, Any]:
    """Return what the dump would read, write and cost. Loads no model and touches no network.

    Keys: tokens, tasks, bytes, seconds or gpu_hours, and `how`: the arithmetic in words. Unknown numbers are None.
    """
    entry = known(config.model)
    per_token = entry.bytes_per_token if entry else 3.5
    how = []
    if config.data == THE_STACK:
        corpus_bytes: float | None = THE_STACK_FACTS["bytes"]
        how.append(
            f"corpus: {THE_STACK_FACTS['documents']:,} files, {corpus_bytes / 1e9:.1f} GB ({THE_STACK_FACTS['cite']})"
        )
    elif is_hub_id(config.data):
        corpus_bytes = None
        how.append("corpus: size not known before it is read; give --max-tokens")
    else:
        documents = list(Corpus(data=config.data, seed=config.seed, max_documents=config.max_documents))
        corpus_bytes = float(sum(len(d.text.encode()) for d in documents))
        how.append(f"corpus: {len(documents):,} documents, {corpus_bytes / 1e6:.1f} MB")
    tokens = None if corpus_bytes is None else corpus_bytes / per_token
    how.append(f"tokens: {per_token:.2f} bytes of Python per token{'' if entry else ' (assumed)'}")
    if config.max_tokens is not None:
        tokens = config.max_tokens if tokens is None else min(tokens, config.max_tokens)
    plan: dict[str, Any] = {
        "model": config.model,
        "data": config.data,
        "engine": choose(config.engine),
        "tokens": None if tokens is None else round(tokens),
        "tasks": None if tokens is None else -(-round(tokens) // config.task_tokens),
        "bytes": None if tokens is None else round(tokens * BYTES_PER_TOKEN),
    }
    how.append(f"bytes: {BYTES_PER_TOKEN:g} per token on disk")
    if entry is not None and tokens is not None:
        plan |= _time(entry, tokens, how)
    return {**plan, "how": how}


def _time(entry: Known, tokens: float, how: list[str]) -> dict[str, Any]:
    flop = 2 * entry.parameters
    if entry.package is None:
        rate = H100_FLOPS * PREFILL_USE / flop
        how.append(
            f"GPU-hours: {flop / 1e9:.0f} GFLOP per token; an H100 at {PREFILL_USE:.0%} of "
            f"{H100_FLOPS / 1e12:.0f} TFLOP/s prefills {rate:,.0f} tokens/s"
        )
        return {"gpu_hours": round(tokens / rate / 3600, 1), "memory_gb": round(2 * entry.parameters / 1e9)}
    import os

    cores = os.cpu_count() or 1
    rate = CPU_FLOPS_PER_CORE * cores / flop
    how.append(f"time: {flop / 1e9:.2f} GFLOP per token; {cores} cores at {CPU_FLOPS_PER_CORE / 1e9:.0f} GFLOP/s each")
    return {"seconds": round(tokens / rate)}

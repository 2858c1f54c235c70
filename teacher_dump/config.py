"""Settings of a dump: one frozen set, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from shards.format.schema import MAX_ENTRIES
from shards.runtime.machine import DTYPES
from teacher_dump.corpus.filters.rules import Filters
from teacher_dump.engines.registry import ENGINE_CHOICES
from teacher_dump.errors import DumpError
from teacher_dump.run.signals import Share

LEAST_THRESHOLD = math.ceil(1e4 / MAX_ENTRIES) / 1e4
"""Least value of --threshold: as many draws as one position can need then fit into the format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpConfig:
    """Settings of a dump."""

    model: str
    """Short name, hub id or folder of the teacher."""
    out: Path
    """Folder of the cache."""
    data: str
    """Corpus: stdlib, folder, files or hub data set."""
    filters: Filters = field(default_factory=Filters)
    """What a document must be."""
    engine: str = "auto"
    """auto, vllm or transformers."""
    seed: int = 0
    """Of the order of documents and of the draws."""
    max_tokens: int | None = None
    """Stop after about this many tokens: the window that reaches it is the last."""
    max_documents: int | None = None
    """Stop after this many documents."""
    window_tokens: int = 1024
    """Most tokens of a row, prefix included."""
    task_tokens: int = 1_000_000
    """Tokens of a task, which is a shard: what a crash can cost at most."""
    chunk_tokens: int = 65_536
    """Tokens of a chunk: what one read returns."""
    threshold: float = 0.04
    """c: ids of at least this probability are kept exactly."""
    temperatures: tuple[float, ...] = (1.5, 2.0, 4.0)
    """Temperatures whose log Z is stored."""
    dtype: str = "auto"
    """auto (bfloat16 where the machine computes in it, else float32), float32 or bfloat16."""
    tensor_parallel_size: int = 1
    """GPUs that one engine spreads the teacher over."""
    pipeline_parallel_size: int = 1
    """Groups of layers that one engine spreads over as many groups of GPUs."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that vLLM may take; vLLM's default where None."""
    max_num_batched_tokens: int | None = None
    """Most tokens of one engine step; the engine's default where None."""
    quantization: str | None = None
    """How vLLM quantises the weights; what the teacher's folder says where None."""
    worker: str = "1/1"
    """I/N: this process does every N-th task, the I-th of each N."""
    ray: str | None = None
    """Address of a Ray cluster whose workers do the tasks, or `local`."""
    ray_workers: int | None = None
    """Engines on the cluster: as many as its GPUs hold where None, one without GPUs."""
    revision: str | None = None
    """Revision of a hub teacher that has no short name."""

    def __post_init__(self) -> None:
        for name, least in (("window_tokens", 8), ("task_tokens", 8), ("chunk_tokens", 8), ("tensor_parallel_size", 1)):
            if getattr(self, name) < least:
                raise DumpError(f"{name}: found {getattr(self, name)}, expected at least {least}")
        for name in ("max_tokens", "max_documents", "max_num_batched_tokens", "ray_workers", "pipeline_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DumpError(f"{name}: found {value}, expected at least 1")
        if not LEAST_THRESHOLD <= self.threshold <= 0.5:
            raise DumpError(
                f"threshold: found {self.threshold:g}, expected from {LEAST_THRESHOLD:.4f} to 0.5: below that a "
                f"position could need more than the {MAX_ENTRIES} ids that the format holds"
            )
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise DumpError(f"gpu_memory_utilization: found {share}, expected a share above 0, at most 1")
        if Share.parse(self.worker) != Share() and self.ray is not None:
            raise DumpError("--worker and --ray: found both, expected one: Ray shares the tasks out itself")
        if self.engine not in ENGINE_CHOICES:
            raise DumpError(f"engine: found {self.engine!r}, expected one of {', '.join(ENGINE_CHOICES)}")
        if self.dtype not in DTYPES:
            raise DumpError(f"dtype: found {self.dtype!r}, expected one of {', '.join(DTYPES)}")

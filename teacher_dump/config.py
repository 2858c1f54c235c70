"""Settings of a dump, validated once. A field with a help text is also a command-line option."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from shards.format.schema import MAX_ENTRIES
from shards.runtime.machine import DTYPES
from teacher_dump.conversations.settings import ConversationSettings
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.engines.registry import ENGINE_CHOICES
from teacher_dump.errors import DumpError
from teacher_dump.relations.settings import RelationSettings
from teacher_dump.tasks.share import Share

MIN_THRESHOLD = math.ceil(1e4 / MAX_ENTRIES) / 1e4
"""Least value of --threshold: the format then has room for the draws that one position can need."""
_AT_LEAST_8 = ("window_tokens", "task_tokens", "chunk_tokens")
_AT_LEAST_1 = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_tokens",
    "max_documents",
    "max_num_batched_tokens",
    "ray_workers",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpConfig:
    """Settings of a dump."""

    model: str
    """Short name, hub id or folder of the teacher."""
    out: Path
    """Folder of the cache."""
    data: str
    """Corpus: stdlib, a folder, files or a hub data set."""
    engine: str = field(
        default="auto",
        metadata={
            "choices": ENGINE_CHOICES,
            "help": "Program that runs the teacher; auto is vLLM where it is installed, otherwise transformers.",
        },
    )
    filters: FilterSettings = field(default_factory=FilterSettings)
    """Settings of the corpus filters."""
    conversations: ConversationSettings = field(default_factory=ConversationSettings)
    """Settings of a corpus of conversations."""
    relations: RelationSettings = field(default_factory=RelationSettings)
    """Settings of the vectors of one layer."""
    max_tokens: int | None = field(
        default=None, metadata={"default_text": "all", "help": "Stop after about this many tokens."}
    )
    max_documents: int | None = field(
        default=None, metadata={"default_text": "all", "help": "Stop after this many documents."}
    )
    seed: int = field(
        default=0,
        metadata={"help": "Seed of the documents' order and of the draws; with --check, of the choice of rows."},
    )
    window_tokens: int = field(default=1024, metadata={"help": "Most tokens of a row, prefix included."})
    task_tokens: int = field(
        default=1_000_000,
        metadata={"help": "Tokens of a task. Each task becomes one shard; a crash loses at most the current task."},
    )
    chunk_tokens: int = field(default=65_536, metadata={"help": "Tokens of a chunk, the unit of reading."})
    threshold: float = field(
        default=0.04,
        metadata={"help": "Store every id of at least this probability exactly; draw samples from the rest."},
    )
    temperatures: tuple[float, ...] = (1.5, 2.0, 4.0)
    """Temperatures T of the stored log Z_T."""
    dtype: str = field(
        default="auto",
        metadata={
            "choices": DTYPES,
            "help": "Type of weights and activations; auto is bfloat16 where the GPU or the processor computes in it, "
            "else float32.",
        },
    )
    tensor_parallel_size: int = field(
        default=1, metadata={"help": "GPUs, or processes on a CPU, that one engine splits each layer over."}
    )
    pipeline_parallel_size: int = field(
        default=1, metadata={"help": "Groups of GPUs, each with its share of the layers."}
    )
    gpu_memory_utilization: float | None = field(
        default=None, metadata={"default_text": "vLLM's", "help": "Share of a GPU's memory that vLLM takes."}
    )
    max_num_batched_tokens: int | None = field(
        default=None, metadata={"default_text": "2048", "help": "Most tokens of one engine step."}
    )
    quantization: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "default_text": "the teacher's own",
            "help": "Method by which vLLM quantises the weights, such as fp8.",
        },
    )
    worker: str = field(
        default="1/1",
        metadata={"metavar": "I/N", "help": "Run as worker I of N: every N-th task, from the I-th on."},
    )
    ray: str | None = field(
        default=None,
        metadata={"metavar": "ADDRESS", "help": "Run the tasks on this Ray cluster; `local` starts one here."},
    )
    ray_workers: int | None = field(
        default=None,
        metadata={
            "default_text": "as many as the cluster's GPUs hold",
            "help": "With --ray: number of engines; one on a cluster without GPUs.",
        },
    )
    revision: str | None = field(
        default=None,
        metadata={"default_text": "pinned for short names, else main", "help": "Revision of a hub teacher."},
    )

    def __post_init__(self) -> None:
        for names, minimum in ((_AT_LEAST_8, 8), (_AT_LEAST_1, 1)):
            for name in names:
                value = getattr(self, name)
                if value is not None and value < minimum:
                    raise DumpError(f"{name}: found {value}, expected at least {minimum}")
        if not MIN_THRESHOLD <= self.threshold <= 0.5:
            raise DumpError(
                f"threshold: found {self.threshold:g}, expected from {MIN_THRESHOLD:.4f} to 0.5: below that a "
                f"position could need more than the {MAX_ENTRIES} ids that the format holds"
            )
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise DumpError(f"gpu_memory_utilization: found {share}, expected a share above 0, at most 1")
        if Share.parse(self.worker) != Share() and self.ray is not None:
            raise DumpError("--worker and --ray: found both, expected one: Ray distributes the tasks itself")
        if self.engine not in ENGINE_CHOICES:
            raise DumpError(f"engine: found {self.engine!r}, expected one of {', '.join(ENGINE_CHOICES)}")
        if self.dtype not in DTYPES:
            raise DumpError(f"dtype: found {self.dtype!r}, expected one of {', '.join(DTYPES)}")

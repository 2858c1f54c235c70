"""Which engine answers? Both take windows and give packed records (`teacher_dump.reduce.Records`), in order."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from teacher_dump.errors import DumpError
from teacher_dump.reduce import RecordSpec
from teacher_dump.windows import Window

Packed = npt.NDArray[np.int32]
"""[P, columns] of one window: `Records.pack`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Teaching:
    """What an engine must know."""

    folder: Path
    """Transformers folder of the teacher."""
    vocab_size: int
    """Ids that can get probability: logits beyond are padding and are cut off before the softmax."""
    spec: RecordSpec
    seed: int
    dtype: str
    window_tokens: int
    tensor_parallel_size: int
    whitespace_ids: tuple[int, ...]
    """Ids that begin with a whitespace byte, or end a text."""

    def whitespace_mask(self) -> npt.NDArray[np.float32]:
        """Return float32 [V]: 1 for `whitespace_ids`."""
        mask = np.zeros(self.vocab_size, np.float32)
        mask[list(self.whitespace_ids)] = 1
        return mask


class Engine(Protocol):
    """A teacher that answers."""

    about: dict[str, Any]
    """Name, version, dtype, device, parallelism: for the manifest."""

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in order."""

    def close(self) -> None:
        """Free the teacher."""


def choose(engine: str) -> str:
    """Return which engine `--engine` means on this machine. Raises DumpError where vLLM is asked for and absent."""
    found = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not found:
        raise DumpError("--engine vllm: vLLM is not installed; run `make setup`, or use --engine transformers")
    return ("vllm" if found else "transformers") if engine == "auto" else engine


def start(engine: str, teaching: Teaching) -> Engine:
    """Load the teacher. Takes seconds to minutes."""
    if engine == "vllm":
        from teacher_dump.engines.vllm import VllmEngine

        return VllmEngine(teaching)
    from teacher_dump.engines.transformers import TransformersEngine

    return TransformersEngine(teaching)

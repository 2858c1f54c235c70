"""The engines: both take windows and return packed records (`teacher_dump.engines.sparsify.Records`), in order."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shards.errors import first_line
from shards.runtime import machine
from shards.runtime.machine import DtypeChoice
from teacher_dump.engines.sparsify import RecordSpec
from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.tasks.windowing import Window

DEAD_ENGINES = ("EngineDeadError", "EngineGenerateError")
"""What vLLM raises when its processes are gone (vllm.v1.engine.exceptions)."""

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
    """float32 or bfloat16, never auto."""
    window_tokens: int
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    """vLLM's own default where None, as below."""
    max_num_batched_tokens: int | None = None
    quantization: str | None = None
    whitespace_ids: tuple[int, ...]
    """Ids that begin with a whitespace byte, or end a text."""

    def whitespace_mask(self) -> npt.NDArray[np.float32]:
        """Return float32 [V]: 1 for `whitespace_ids`."""
        mask = np.zeros(self.vocab_size, np.float32)
        mask[list(self.whitespace_ids)] = 1
        return mask


class Engine(Protocol):
    """A teacher that answers."""

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


def describe(engine: str, teaching: Teaching) -> dict[str, Any]:
    """Return an engine's name, version, dtype, device and parallelism, for the manifest.

    Without loading it: a run that finds every task finished must write the manifest that the others would have.
    """
    import torch

    return {
        "name": engine,
        "version": version(engine),
        "torch": torch.__version__,
        "dtype": teaching.dtype,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "tensor_parallel_size": teaching.tensor_parallel_size,
        "pipeline_parallel_size": teaching.pipeline_parallel_size,
        "quantization": teaching.quantization,
    }


def choose_dtype(asked: str) -> DtypeChoice:
    """Return the type that `--dtype` means on this machine, see `shards.runtime.machine`."""
    import torch

    return machine.choose_dtype(asked, gpu=machine.gpu(torch))


def version(engine: str) -> str:
    """Return the installed version of an engine, "" where there is none. vLLM's CPU build is a package of its own."""
    for name in (engine, f"{engine}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


@contextlib.contextmanager
def dying(engine: str) -> Iterator[None]:
    """Turn what an engine says when it dies into DeadEngineError; other errors keep their traceback."""
    import torch

    try:
        yield
    except Exception as error:
        kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
        if isinstance(error, kinds) or type(error).__name__ in DEAD_ENGINES or "CUDA error" in str(error):
            raise died(engine, f"{type(error).__name__}: {first_line(error)}") from error
        raise


def died(engine: str, cause: str) -> DeadEngineError:
    """Return the error of an engine that ended by itself, for a cause."""
    return DeadEngineError(
        f"{engine}: the engine died ({cause}); finished tasks are kept: run the same command again, with a lower "
        "--gpu-memory-utilization or --max-num-batched-tokens where memory ran out"
    )


def start(engine: str, teaching: Teaching) -> Engine:
    """Load the teacher. Takes seconds to minutes."""
    if engine == "vllm":
        from teacher_dump.engines.vllm import VllmEngine

        return VllmEngine(teaching)
    from teacher_dump.engines.hf import TransformersEngine

    return TransformersEngine(teaching)

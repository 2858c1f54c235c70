"""Errors of an engine that crashed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from shards.errors import first_line
from teacher_dump.errors import DeadEngineError

CRASH_ERRORS = ("EngineDeadError", "EngineGenerateError")
"""Names of the errors that vLLM raises when its processes have ended (vllm.v1.engine.exceptions)."""


@contextlib.contextmanager
def engine_errors(engine: str) -> Iterator[None]:
    """Turn the errors of a crashed engine into DeadEngineError. Other errors pass unchanged.

    Args:
        engine: Name of the engine, for the message.

    Raises:
        DeadEngineError: The engine ran out of memory, its device failed, or its processes ended.
    """
    import torch

    try:
        yield
    except Exception as error:
        is_crash = isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError))
        if is_crash or type(error).__name__ in CRASH_ERRORS or "CUDA error" in str(error):
            raise engine_crashed(engine, f"{type(error).__name__}: {first_line(error)}") from error
        raise


def engine_crashed(engine: str, cause: str) -> DeadEngineError:
    """Return the error of an engine that crashed.

    Args:
        engine: Name of the engine.
        cause: One line that names the cause.
    """
    return DeadEngineError(
        f"{engine}: the engine crashed ({cause}); finished tasks are kept: run the same command again, with a lower "
        "--gpu-memory-utilization or --max-num-batched-tokens if memory ran out"
    )

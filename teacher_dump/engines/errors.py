"""Errors of an engine that failed, and the log file that names their cause."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shards.errors import first_line
from teacher_dump.errors import DeadEngineError

CRASH_ERRORS = ("EngineDeadError", "EngineGenerateError")
"""Names of the errors that vLLM raises when its processes have ended (vllm.v1.engine.exceptions)."""
_CAUSE_CHARACTERS = 300
_PREFIX = re.compile(r"^\([^)]*pid=\d+\) ?")
"""Prefix of each line of vLLM's processes."""
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (\[[^\]]*\])+ ?")
"""Prefix of each line of vLLM's logger."""
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Killed|Exit))(?:: (.*))?$")
"""The last line of a traceback: name and message."""
_REFERENCES = ("initialization failed", "See root cause", "See stack trace")
"""Parts of messages that only refer to another message."""


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


class EngineLog:
    """A temporary file with the output of an engine and its processes. It is kept until `discard`."""

    def __init__(self, name: str) -> None:
        """Create the file.

        Args:
            name: Name of the engine, a part of the file's name.
        """
        descriptor, path = tempfile.mkstemp(prefix=f"teacher-dump-{name}-", suffix=".log")
        os.close(descriptor)
        self.path = Path(path)

    @contextlib.contextmanager
    def redirected(self) -> Iterator[None]:
        """Redirect stdout and stderr of this process to the file.

        Processes that start meanwhile inherit the file and keep writing to it, so that their later output does not
        reach the terminal either.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [os.dup(1), os.dup(2)]
        log = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, target)
                os.close(descriptor)

    def cause(self, error: BaseException) -> str:
        """Return one line that names the cause of a failure.

        Engines fail in processes of their own, and the error that reaches this process often only says that. The first
        exception in the file is then the cause.

        Args:
            error: The error raised in this process. It is the cause if the file names none.
        """
        message = str(error).strip()
        if message and not _is_reference(message):
            return _one_line(type(error).__name__, message)
        try:
            lines = self.path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            match = _EXCEPTION.match(_LEVEL.sub("", _PREFIX.sub("", line)).strip())
            if match and not _is_reference(line):
                return _one_line(match[1], match[2] or "")
        return _one_line(type(error).__name__, message)

    def discard(self) -> None:
        """Remove the file. Processes may still write to it."""
        self.path.unlink(missing_ok=True)


def _is_reference(message: str) -> bool:
    return any(part in message for part in _REFERENCES)


def _one_line(name: str, message: str) -> str:
    line = " ".join(message.split())
    if len(line) > _CAUSE_CHARACTERS:
        line = line[:_CAUSE_CHARACTERS] + "..."
    return f"{name}: {line}" if line else name

"""Errors of an engine that failed, the log file that names their cause, and a watch over its processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from shards.errors import first_line
from teacher_dump.errors import DeadEngineError, DumpError

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

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[list[BaseProcess]]:
        """Redirect the output of a vLLM that starts, and turn its failure into an error that names the cause.

        Args:
            name: What is started, for the message.

        Yields:
            A list that holds the processes of vLLM after the block.

        Raises:
            DumpError: vLLM cannot run the model with its settings.
            DeadEngineError: A device failed or ran out of memory.
        """
        before = set(multiprocessing.active_children())
        processes: list[BaseProcess] = []
        try:
            with self.redirected():
                yield processes
        except DumpError:
            self.discard()
            raise
        except Exception as error:  # vLLM fails in a process of its own and reports in many ways
            cause = self.cause(error)
            kind = DeadEngineError if "OutOfMemory" in cause or "CUDA error" in cause else DumpError
            raise kind(
                f"vllm: the {name} did not start ({cause}); its whole output is in {self.path}; change the setting "
                "that it names, or use --engine transformers"
            ) from error
        processes += [process for process in multiprocessing.active_children() if process not in before]

    def crashed(self, cause: str) -> DeadEngineError:
        """Return the error of a vLLM that crashed; it names this file."""
        return engine_crashed("vllm", f"{cause}; its output is in {self.path}")

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


def watch(llm_engine: Any, processes: Collection[BaseProcess], log: EngineLog) -> None:
    """Make the next step of vLLM raise DeadEngineError when one of its processes ends; vLLM may wait for it forever.

    Args:
        llm_engine: vLLM's `LLMEngine`.
        processes: Its processes.
        log: File with their output, for the message.
    """
    outputs = getattr(llm_engine.engine_core, "outputs_queue", None)  # absent where the engine runs in this process
    if outputs is None or not processes:
        return

    def wait() -> None:
        ended = connection.wait([process.sentinel for process in processes])
        process = next(process for process in processes if process.sentinel in ended)
        process.join()
        outputs.put(log.crashed(f"its process ended with code {process.exitcode}"))

    threading.Thread(target=wait, name="vllm-watch", daemon=True).start()


def _is_reference(message: str) -> bool:
    return any(part in message for part in _REFERENCES)


def _one_line(name: str, message: str) -> str:
    line = " ".join(message.split())
    if len(line) > _CAUSE_CHARACTERS:
        line = line[:_CAUSE_CHARACTERS] + "..."
    return f"{name}: {line}" if line else name

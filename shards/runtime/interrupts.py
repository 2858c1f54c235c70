"""Run a command: end it on Ctrl-C with exit code 130 and no traceback at any time, and name an extra that is missing.

While modules are imported, the process ends at once, because there is nothing to clean up. While a command works, the
first Ctrl-C raises KeyboardInterrupt, so that files are cleaned up, and the second one ends the process at once.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shards.runtime.imports import quicken_imports

EXIT_CODE = 130
"""128 plus the number of SIGINT, as shells report it."""


_PROGRAMS = {
    "shards": "logit-shards",
    "teacher_dump": "teacher-dump",
    "student_train": "student-train",
    "evalkit": "evalkit",
}
"""Name of the program of each package."""


def run_program(module: str, function: str = "main") -> None:
    """Import a command and run it. If SIGINT is ignored, as after nohup, it stays ignored.

    Args:
        module: Module of the command.
        function: Function to call without arguments.

    Raises:
        SystemExit: With exit code 1 after a line on a package of an extra that is not installed, or on a working
            directory that was deleted.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end_now)
        # Handlers registered first run last: afterwards Python removes its handlers, and SIGINT would kill the process.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    quicken_imports()
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the working directory was deleted; change to one that exists (cd)", file=sys.stderr)
        sys.exit(1)
    try:
        command: Callable[[], None] = getattr(importlib.import_module(module), function)
        command()
    except ModuleNotFoundError as error:
        from shards.runtime.extras import missing_module_line

        line = missing_module_line(error, _PROGRAMS.get(module.partition(".")[0], ""))
        if line is None or "--debug" in sys.argv:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def end_now(number: int, _: FrameType | None) -> None:
    """Signal handler that ends the process without any clean-up."""
    os._exit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Translate KeyboardInterrupt in the block to one line on standard error and exit code 130.

    An EOFError becomes a RuntimeError, which keeps its traceback: click would treat it as Ctrl-D and print "Aborted!".
    """
    before = signal.getsignal(signal.SIGINT)
    if before is end_now:  # started by run_program, not called by a test or a notebook
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except EOFError as error:
        raise RuntimeError("a file or stream ended before its end, and its reader did not say which") from error
    finally:
        if before is end_now:
            signal.signal(signal.SIGINT, before)


def _interrupt(number: int, _: FrameType | None) -> None:
    signal.signal(number, end_now)
    raise KeyboardInterrupt

"""End a command on Ctrl-C with exit code 130 and no traceback, at any moment of its life.

While modules are imported nothing is at stake: the process ends at once. While a command works, the first Ctrl-C raises
KeyboardInterrupt, so that files are cleaned up, and a second one ends the process at once.
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

EXIT_CODE = 130
"""128 and the number of SIGINT, as shells report it."""


def run_program(module: str, function: str = "main") -> None:
    """Import a command and run it. Where SIGINT is ignored, as after nohup, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end_now)
        # The last thing before Python takes its handlers away, when a signal would end the process by itself.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    command: Callable[[], None] = getattr(importlib.import_module(module), function)
    command()


def end_now(number: int, _: FrameType | None) -> None:
    """End the process without any clean-up. A signal's handler."""
    os._exit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt the work inside: KeyboardInterrupt is one line and exit code 130.

    An EOFError becomes a RuntimeError, which keeps its traceback: click would take it for Ctrl-D and say "Aborted!".
    """
    before = signal.getsignal(signal.SIGINT)
    if before is end_now:  # a program of ours, not a test or a notebook that calls one
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

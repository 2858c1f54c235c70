"""Writing in a process of its own, so that its model has left the memory before the teacher is loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from shards.errors import ShardError
from shards.runtime.heartbeat import Heartbeat
from shards.runtime.lifetime import bind_children
from teacher_dump.config import DumpConfig
from teacher_dump.errors import DeadEngineError
from teacher_dump.run.signals import Stopped, StopSignals
from teacher_dump.writing.run import WritingOutcome, run_writing
from teacher_dump.writing.settings import WritingSettings

_POLL_S = 0.2
_CLOSE_S = 10.0
"""Seconds that the process has to end by itself after a signal."""


def write_in_process(config: DumpConfig, settings: WritingSettings, stop_signals: StopSignals) -> WritingOutcome:
    """Run `run_writing` in a process that ends with it, and with this one however that ends.

    Args:
        config: Settings of the dump.
        settings: What is written.
        stop_signals: Signals of this process; SIGUSR1 is passed on.

    Raises:
        ShardError: What `run_writing` raised.
        DeadEngineError: The process was killed.
        Stopped: A signal ended this process's work.
    """
    bind_children()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_write_and_send, args=(config, settings, sender), name="teacher-dump-writer")
    child.start()
    sender.close()
    try:
        result = _receive(receiver, child, stop_signals)
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join(_CLOSE_S)
        if child.is_alive():
            child.kill()
            child.join()
    if isinstance(result, ShardError):
        raise result
    return result


def _receive(receiver: Connection, child: BaseProcess, stop_signals: StopSignals) -> WritingOutcome | ShardError:
    """Return the child's result, and pass SIGUSR1 on to it."""
    is_passed_on = False
    while not receiver.poll(_POLL_S):
        if stop_signals.first == signal.SIGUSR1 and not is_passed_on and child.pid is not None:
            os.kill(child.pid, signal.SIGUSR1)
            is_passed_on = True
    try:
        result: WritingOutcome | ShardError = receiver.recv()
    except EOFError:  # it ended without a result
        child.join()
        code = child.exitcode or 0
        if code > 128 and code - 128 in (signal.SIGINT, signal.SIGTERM):
            raise Stopped from None
        if code < 0:
            return DeadEngineError(
                f"the process that writes was killed by {signal.Signals(-code).name}; the system may have lacked "
                "memory; finished tasks are kept: run the same command again"
            )
        raise RuntimeError(f"the process that writes ended with code {code}; its traceback is above") from None
    return result


def _write_and_send(config: DumpConfig, settings: WritingSettings, sender: Connection) -> None:
    """Body of the process."""
    stop_signals = StopSignals()
    result: WritingOutcome | ShardError
    try:
        with stop_signals.handled(), Heartbeat(first="reading the writer's files and the prompts") as heartbeat:
            result = run_writing(config, settings, stop_signals, heartbeat)
    except ShardError as error:
        result = error
    except (Stopped, KeyboardInterrupt):
        sys.exit(128 + (stop_signals.first or signal.SIGINT))
    sender.send(result)

"""Child processes of the crash tests: dumps in processes that are forked with all modules imported.

A fork server preloads this file, so that a child starts in milliseconds and can be killed at any moment of its work.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

import teacher_dump.engines.hf
from shards.errors import ShardError
from teacher_dump import cli
from teacher_dump.config import DumpConfig
from teacher_dump.run import dump, task_runner

USED = (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    teacher_dump.engines.hf,
)
"""Referenced here because transformers imports them on first use."""
FAILED = 9
"""Exit code of a dump that ended with a ShardError."""
OPERATIONS = ("fsync", "link", "replace", "unlink")
"""Functions of `os`; a child may be killed before and after each call."""


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Fork a child that runs the target with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=target, args=arguments)
    child.start()
    return child


def run(config: DumpConfig) -> None:
    """Run a dump without output."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        dump.dump(config)
    except ShardError:
        sys.exit(FAILED)


def run_and_count(config: DumpConfig, result: Path) -> None:
    """Run a dump, and write the number of moments before and after operations, and the seconds."""
    moments = at_each_moment(lambda number: None)
    begin = time.monotonic()
    run(config)
    result.write_text(f"{moments[0]} {time.monotonic() - begin}")


def run_until_moment(config: DumpConfig, last: int) -> None:
    """Run a dump, and kill the process at a moment."""
    at_each_moment(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == last else None)
    run(config)


def run_until_full(config: DumpConfig, last: int) -> None:
    """Run a dump on a disk that is full from a moment on: files can be neither made durable nor renamed."""

    def full(number: int) -> None:
        if number >= last and number % 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at_each_moment(full, ("fsync", "link", "replace"))
    run(config)


def run_with_small_files(config: DumpConfig, largest: int) -> None:
    """Run a dump with a limit on the size of files, so that writes fail half-way."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    run(config)


def run_command(arguments: list[str], slow_engine_s: float = 0.0, slow_end_s: float = 0.0) -> None:
    """Run the command, with a delay in each window and in the clean-up."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    to_row, remove_own = task_runner.to_row, dump.remove_own

    def slow_row(*given: Any) -> Any:
        time.sleep(slow_engine_s)
        return to_row(*given)

    def slow_end(*given: Any) -> None:
        time.sleep(slow_end_s)
        remove_own(*given)

    task_runner.to_row, dump.remove_own = slow_row, slow_end
    cli.main(arguments)


def at_each_moment(on_moment: Callable[[int], None], names: tuple[str, ...] = OPERATIONS) -> list[int]:
    """Call `on_moment` with the number of each moment before (odd) and after (even) an operation; return the count."""
    count = [0]

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            count[0] += 1
            on_moment(count[0])
            result = operation(*given, **options)
            count[0] += 1
            on_moment(count[0])
            return result

        return call

    for name in names:
        setattr(os, name, watched(getattr(os, name)))
    return count

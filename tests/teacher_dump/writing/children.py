"""Child processes of the crash tests of writing; see `tests.teacher_dump.run.children`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from teacher_dump.config import DumpConfig
from teacher_dump.writing.settings import WritingSettings
from tests.teacher_dump.run.children import at_each_moment
from tests.teacher_dump.writing.helpers import write


def run(config: DumpConfig, settings: WritingSettings) -> None:
    """Write without output."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    write(config, settings)


def run_and_count(config: DumpConfig, settings: WritingSettings, result: Path) -> None:
    """Write, and note the number of moments before and after file operations, and the seconds."""
    moments = at_each_moment(lambda number: None)
    begin = time.monotonic()
    run(config, settings)
    result.write_text(f"{moments[0]} {time.monotonic() - begin}")


def run_until_moment(config: DumpConfig, settings: WritingSettings, last: int) -> None:
    """Write, and kill the process at a moment."""
    at_each_moment(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == last else None)
    run(config, settings)

"""Settings and calls that several test modules share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from teacher_dump.cli import main
from teacher_dump.config import DumpConfig


def dump_config(teacher: Path, corpus: Path, out: Path, **more: Any) -> DumpConfig:
    """Return the settings of a small dump in several tasks."""
    settings: dict[str, Any] = {
        "engine": "transformers",
        "window_tokens": 48,
        "task_tokens": 150,
        "chunk_tokens": 100,
        "max_tokens": 900,
        "dtype": "float32",
    }
    return DumpConfig(model=str(teacher), data=str(corpus), out=out, **{**settings, **more})


def run_command(*arguments: object) -> Result:
    """Run `teacher-dump` in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])

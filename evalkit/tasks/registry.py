"""Table of all benchmarks: title, loader and data files by the name that `--tasks` takes.

To add a benchmark: write a loader in a module of this folder, add a row to `BENCHMARKS`, and name the benchmark in the
`tasks` of a protocol in `evalkit/tasks/presets.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark
from evalkit.tasks.data_files import candidate_paths
from evalkit.tasks.evalplus import HUMANEVAL_PLUS, MBPP_PLUS, load_humaneval_plus, load_mbpp_plus
from evalkit.tasks.humaneval import HUMANEVAL_NAMES, load_humaneval
from evalkit.tasks.mbpp import (
    MBPP,
    MBPP_SANITIZED,
    load_mbpp,
    load_mbpp_sanitized,
    load_mbpp_train,
    load_mbpp_validation,
)
from evalkit.tasks.private_api.benchmark import PRIVATE_API_NAMES, load_private_api


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkEntry:
    """One row of the table of benchmarks."""

    title: str
    """Name in reports."""
    load: Callable[[Path | None], Benchmark]
    """Function from the data folder (None: fetch the file) to the benchmark."""
    file_names: tuple[str, ...]
    """Names of its data file in the data folder."""


BENCHMARKS: dict[str, BenchmarkEntry] = {
    "humaneval": BenchmarkEntry(title="HumanEval", load=load_humaneval, file_names=HUMANEVAL_NAMES),
    "humaneval+": BenchmarkEntry(title="HumanEval+", load=load_humaneval_plus, file_names=HUMANEVAL_PLUS.names),
    "mbpp": BenchmarkEntry(title="MBPP", load=load_mbpp, file_names=MBPP.names),
    "mbpp:train": BenchmarkEntry(title="MBPP train", load=load_mbpp_train, file_names=MBPP.names),
    "mbpp:validation": BenchmarkEntry(title="MBPP validation", load=load_mbpp_validation, file_names=MBPP.names),
    "mbpp-sanitized": BenchmarkEntry(title="MBPP sanitized", load=load_mbpp_sanitized, file_names=MBPP_SANITIZED.names),
    "mbpp+": BenchmarkEntry(title="MBPP+", load=load_mbpp_plus, file_names=MBPP_PLUS.names),
    "private-api": BenchmarkEntry(title="Private API", load=load_private_api, file_names=PRIVATE_API_NAMES),
}
"""Benchmarks by the name that `--tasks` takes."""


def load(name: str, *, data_dir: Path | None = None) -> Benchmark:
    """Read a benchmark.

    Args:
        name: A key of `BENCHMARKS`.
        data_dir: Folder with benchmark files; None to use installed packages and downloads.

    Raises:
        EvalError: The name is unknown, or the data is missing or not the pinned one.
    """
    entry = BENCHMARKS.get(name)
    if entry is None:
        raise EvalError(f"task {name!r} is unknown; expected one of {', '.join(BENCHMARKS)}")
    if data_dir is not None and not data_dir.is_dir():
        raise EvalError(f"--data-dir {data_dir}: no such folder; expected one that holds benchmark files")
    return entry.load(data_dir)


def title_of(name: str) -> str:
    """Return the title of a benchmark; its name if the benchmark is unknown."""
    return BENCHMARKS[name].title if name in BENCHMARKS else name


def data_files(data_dir: Path | None) -> list[Path]:
    """Return the benchmark files that exist in the data folder."""
    if data_dir is None:
        return []
    names = tuple(name for entry in BENCHMARKS.values() for name in entry.file_names)
    return [path for path in candidate_paths(names, data_dir) if path.is_file()]

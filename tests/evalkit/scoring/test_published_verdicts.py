"""Verdicts on published samples of Qwen2.5-Coder-1.5B equal the published ones.

No counterpart: a whole flow (tasks, time limits, sandbox).
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring import time_limits
from evalkit.scoring.grader import Grader
from evalkit.tasks import registry
from tests.exhaustive import EXHAUSTIVE, share


def published(data: Path, pool: Pool, task: str, *, every: int = 1) -> tuple[dict[str, bool], dict[str, bool]]:
    """Return our verdicts and the published ones, by task id, on the makers' samples of Qwen2.5-Coder-1.5B.

    Args:
        data: Folder of benchmarks and samples.
        pool: Checkers.
        task: Name of the benchmark.
        every: Each `every`-th problem is taken; all in an exhaustive run.
    """
    family = task.rstrip("+")
    folder = data / "qwen2.5-coder-1.5b"
    benchmark = registry.load(task, data_dir=data)
    problems = {problem.task_id: problem for problem in share(benchmark.problems, every=every)}
    limits = time_limits.calibrate([*problems.values()], pool, VerdictCache(None))
    assert limits.failed == {}
    lines = (folder / f"1.5b-base-{family}-generated.jsonl").read_text().splitlines()
    ours = {}
    grader = Grader(pool, VerdictCache(None))
    chosen = [line for line in map(json.loads, lines) if line["task_id"] in problems]
    for line in chosen:
        problem = problems[line["task_id"]]
        grader.add(problem.job(problem.prompt + line["completion"], cpu_s=limits.cpu_s[problem.task_id]))
    for line, verdict in zip(chosen, grader.finish(), strict=True):
        ours[line["task_id"]] = verdict.passed
    results = json.loads((folder / f"1.5b-base-{family}-generated_eval_results.json").read_text())["eval"]
    keys = ("base_status", "plus_status") if task.endswith("+") else ("base_status",)
    theirs = {task_id: all(results[task_id][0][key] == "pass" for key in keys) for task_id in ours}
    return ours, theirs


@pytest.mark.slow
def test_humaneval_verdicts_agree_with_the_published_ones_on_all_164(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "humaneval")
    assert len(ours) == 164
    assert ours == theirs
    assert sum(ours.values()) == 72  # 43.9 percent


@pytest.mark.slow
def test_humaneval_plus_verdicts_agree_with_the_published_ones(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "humaneval+", every=3)
    assert ours == theirs
    assert len(ours) == (164 if EXHAUSTIVE else 55)
    assert sum(ours.values()) == 60 or not EXHAUSTIVE  # 36.6 percent


@pytest.mark.slow
def test_mbpp_plus_verdicts_agree_but_where_the_data_version_differs(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "mbpp+", every=5)
    assert len(ours) == (378 if EXHAUSTIVE else 76)
    assert {task_id for task_id in ours if ours[task_id] != theirs[task_id]} <= {
        "Mbpp/2",
        "Mbpp/579",
        "Mbpp/599",
        "Mbpp/794",
    }


def _burn() -> None:
    while True:
        pass


@pytest.mark.slow
def test_verdicts_do_not_change_under_heavy_load(shared_data: Path):
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(8)]
    for burner in burners:
        burner.start()
    try:
        with Pool(workers=8) as crowded:
            loaded, theirs = published(shared_data, crowded, "humaneval", every=4)
    finally:
        for burner in burners:
            burner.kill()
    assert loaded == theirs  # as those of a quiet machine are

"""Verdicts on HumanEval+ and MBPP+ beside recorded ones of EvalPlus 0.3.1, on references that answer in other types.

`evalplus_verdicts.json` holds [task, transformation, base passes, base and added inputs pass] as EvalPlus gave them:
`python -m benchmarks.evalplus_differential --every N --record FILE` writes such a file.

No counterpart: the check as a whole beside EvalPlus.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.answer_transformations import TRANSFORMATIONS, transform
from evalkit.sandbox.pool import Pool
from evalkit.tasks import registry

RECORDED = json.loads(Path(__file__).with_name("evalplus_verdicts.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [("humaneval+", "HumanEval"), ("mbpp+", "Mbpp")])
def test_verdicts_are_those_of_evalplus(pool: Pool, shared_data: Path, name: str, family: str):
    problems = {one.task_id: one for one in registry.load(name, data_dir=shared_data).problems}
    changes = {one.name: one for one in TRANSFORMATIONS}
    rows = [row for row in RECORDED if row[0].startswith(f"{family}/")]
    assert {row[3] for row in rows} == {True, False}
    jobs = []
    for task_id, change, _, _ in rows:
        problem = problems[task_id]
        jobs.append(problem.job(transform(problem.reference, problem.entry_points[0], changes[change])))
    verdicts = dict(pool.check_all(jobs))
    ours = [[*row[:2], verdicts[place].base_passed, verdicts[place].passed] for place, row in enumerate(rows)]
    assert ours == rows

"""Verdicts of given samples: limits of CPU time, and verdicts that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalkit.samples.base import Sample
from evalkit.sandbox.pool import Pool
from evalkit.scoring import verdicts as verdicts_module
from evalkit.scoring.verdicts import verdicts_of
from evalkit.tasks.base import Benchmark
from tests.evalkit.rerank.test_run import Notes


@pytest.mark.slow
def test_a_program_that_hung_elsewhere_has_a_second_unless_its_verdict_is_known(
    pool: Pool, humaneval: Benchmark, monkeypatch: Any
) -> None:
    (problem,) = (item for item in humaneval.problems if item.task_id == "HumanEval/53")
    loop = Sample(task_id=problem.task_id, completion="    while True:\n        pass\n")
    samples = [loop, replace(loop, index=1, completion="    return x + y\n")]
    monkeypatch.setattr(verdicts_module, "calibrate", lambda *_: _Limits({problem.task_id: 3.0}))

    def verdicts(hopeless: set[int]) -> list[tuple[str, str]]:
        found = verdicts_of(
            [problem], samples, pool=pool, use_cache=True, callbacks=Notes(), hopeless={problem.task_id: hopeless}
        )
        return [(verdict.outcome, verdict.detail.rpartition(", ")[2]) for verdict in found[problem.task_id]]

    assert verdicts({0, 1}) == [("timeout_cpu", "limit 1 s"), ("pass", "")]
    assert verdicts(set()) == [("timeout_cpu", "limit 3 s"), ("pass", "")]
    assert verdicts({0, 1}) == [("timeout_cpu", "limit 3 s"), ("pass", "")]


class _Limits:
    """Limits of CPU time without running references."""

    def __init__(self, cpu_s: dict[str, float]) -> None:
        self.cpu_s, self.failed = cpu_s, {}

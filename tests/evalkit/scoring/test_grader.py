"""Grading: equal programs once, doubtful ones again alone, the machine's failures tried again."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import RETRIED, CheckJob, Verdict
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.grader import Grader
from tests.evalkit.sandbox.jobs import job


class _Flaky:
    """A pool whose first answer for each job is doubtful, as on a machine under load."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def submit(self, job: CheckJob):
        from concurrent.futures import Future

        self.calls.append("beside others")
        future: Future[Verdict] = Future()
        future.set_result(Verdict(outcome="timeout_wall"))
        return future

    def check_alone(self, job: CheckJob, *, after: Verdict) -> Verdict:
        assert after.outcome in RETRIED
        self.calls.append("alone")
        return Verdict(outcome="pass")


def test_what_timed_out_by_the_clock_is_run_again_alone_before_it_counts():
    flaky = _Flaky()
    grader = Grader(flaky, VerdictCache(None))  # type: ignore[arg-type]
    grader.add(job("a"))
    grader.add(job("b"))
    assert [verdict.outcome for verdict in grader.finish()] == ["pass", "pass"]
    assert flaky.calls == ["beside others", "beside others", "alone", "alone"]


def test_identical_programs_run_once_and_verdicts_are_remembered(pool: Pool, tmp_path):
    for expected_runs in (1, 0):
        cache = VerdictCache(tmp_path)
        grader = Grader(pool, cache)
        for _ in range(3):
            grader.add(job("def f(x): return x + 1"))
        assert [verdict.passed for verdict in grader.finish()] == [True] * 3
        assert grader.num_distinct == expected_runs
        cache.close()


class _Script:
    """A pool that answers from a list."""

    def __init__(self, *outcomes: str, starved: bool = True) -> None:
        self.outcomes, self._starved = list(outcomes), starved

    def check_alone(self, job: CheckJob, *, after: Verdict | None = None) -> Verdict:
        return Verdict(outcome=self.outcomes.pop(0), starved=self._starved)

    def submit(self, job: CheckJob):
        from concurrent.futures import Future

        future: Future[Verdict] = Future()
        future.set_result(self.check_alone(job))
        return future


def test_the_verdict_of_a_program_that_sleeps_alone_is_remembered(tmp_path: Path):
    cache = VerdictCache(tmp_path)
    grader = Grader(_Script("timeout_wall", "timeout_wall", starved=False), cache)  # type: ignore[arg-type]
    grader.add(job("a"))
    assert [verdict.outcome for verdict in grader.finish()] == ["timeout_wall"]
    assert grader.knows(job("a"))
    assert not grader.knows(job("b"))
    cache.close()


@pytest.mark.parametrize(
    ("outcomes", "final"),
    [
        (("infra_error", "pass"), "pass"),
        (("infra_error", "infra_error", "wrong"), "wrong"),
        (("infra_error", "infra_error", "infra_error"), "infra_error"),
        (("timeout_wall", "infra_error", "pass"), "pass"),
        (("timeout_wall", "timeout_wall"), "timeout_wall"),
    ],
)
@pytest.mark.slow
def test_what_the_machine_failed_at_is_tried_twice_again(tmp_path: Path, outcomes: tuple[str, ...], final: str):
    cache = VerdictCache(tmp_path)
    script = _Script(*outcomes)
    grader = Grader(script, cache)  # type: ignore[arg-type]
    grader.add(job("a"))
    (key,) = grader._keys
    assert [verdict.outcome for verdict in grader.finish()] == [final]
    assert script.outcomes == []
    assert (cache.get(key) is None) == (final in ("infra_error", "timeout_wall"))
    cache.close()

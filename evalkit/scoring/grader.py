"""Grade samples: equal programs once, known verdicts from the cache, doubtful programs again alone.

Samples may be added while a model still writes: checking takes a few milliseconds each and runs beside generation.
Each verdict is stored as soon as it is known, so an interrupted run keeps them.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from functools import partial

from evalkit.sandbox.pool import Pool, slept
from evalkit.sandbox.verdict import RETRIED, CheckJob, Verdict
from evalkit.sandbox.verdict_cache import VerdictCache, job_key

_PAUSE_S = 2.0
"""Time for the machine to recover before the last attempt, in seconds."""


class Grader:
    """Jobs in, verdicts out, in the order of `add`."""

    def __init__(self, pool: Pool, cache: VerdictCache) -> None:
        """Check on `pool`; read and store verdicts in `cache`."""
        self._pool, self._cache = pool, cache
        self._keys: list[str] = []
        self._jobs: dict[str, CheckJob] = {}
        self._known: dict[str, Verdict] = {}
        self._running: dict[str, Future[Verdict]] = {}
        self.num_reused = 0
        """Samples whose verdict was in the cache."""

    def add(self, job: CheckJob) -> None:
        """Start checking one program, unless an equal one is known or running."""
        key = job_key(job)
        self._keys.append(key)
        if key in self._running:
            return
        if key not in self._known and (verdict := self._cache.get(key)) is not None:
            self._known[key] = verdict
        if key in self._known:
            self.num_reused += 1
            return
        self._jobs[key] = job
        future = self._running[key] = self._pool.submit(job)
        future.add_done_callback(partial(self._store, key))

    def knows(self, job: CheckJob) -> bool:
        """Return whether the verdict of a program is in the cache."""
        return self._cache.get(job_key(job)) is not None

    @property
    def num_done(self) -> int:
        """Number of distinct programs that ended."""
        return sum(future.done() for future in self._running.values())

    @property
    def num_distinct(self) -> int:
        """Number of distinct programs that had to run."""
        return len(self._running)

    def finish(self) -> list[Verdict]:
        """Wait for all programs, run the doubtful ones again alone, and return one verdict per added job.

        A program at which the machine failed runs again twice, the second time after a pause. The last outcome counts.
        """
        doubtful = []
        for key, future in self._running.items():
            self._known[key] = future.result()
            if self._known[key].outcome in RETRIED:
                doubtful.append(key)
        self._check_again(doubtful)
        if failed := [key for key in doubtful if self._known[key].outcome == "infra_error"]:
            time.sleep(_PAUSE_S)
            self._check_again(failed)
        return [self._known[key] for key in self._keys]

    def _check_again(self, keys: list[str]) -> None:
        for key in keys:
            verdict = self._pool.check_alone(self._jobs[key], after=self._known[key])
            self._known[key] = verdict
            self._cache.put(key, verdict, is_sure=verdict.outcome == "timeout_wall" and slept(verdict, self._jobs[key]))

    def _store(self, key: str, future: Future[Verdict]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._cache.put(key, future.result())

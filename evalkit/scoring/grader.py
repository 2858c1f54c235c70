"""Judge samples: equal programs once, known verdicts from the cache, the doubtful again alone.

Samples may be added while a model still writes: judging takes a few milliseconds each and goes on beside it.
Each verdict is in the cache as soon as there is one, so an interrupted run keeps them.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from functools import partial

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import RETRIED, CheckJob, Verdict
from evalkit.sandbox.verdict_cache import VerdictCache, job_key

_PAUSE_S = 2.0
"""Time for a machine to recover before what it failed at twice is tried for the last time."""


class Grader:
    """Jobs in, verdicts out, in the order of `add`."""

    def __init__(self, pool: Pool, cache: VerdictCache) -> None:
        self._pool, self._cache = pool, cache
        self._keys: list[str] = []
        self._jobs: dict[str, CheckJob] = {}
        self._known: dict[str, Verdict] = {}
        self._running: dict[str, Future[Verdict]] = {}
        self.num_reused = 0
        """Samples whose verdict was in the cache."""

    def add(self, job: CheckJob) -> None:
        """Start judging one program, unless the same is known or under way."""
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
        future.add_done_callback(partial(self._keep, key))

    @property
    def num_done(self) -> int:
        """How many distinct programs have ended."""
        return sum(future.done() for future in self._running.values())

    @property
    def num_distinct(self) -> int:
        """How many distinct programs had to be run."""
        return len(self._running)

    def finish(self) -> list[Verdict]:
        """Wait for all, run the doubtful ones again alone, and return one verdict per added job.

        What the machine fails at is run again twice, the second time after a pause. What fails then is final.
        """
        doubtful = []
        for key, future in self._running.items():
            self._known[key] = future.result()
            if self._known[key].outcome in RETRIED:
                doubtful.append(key)
        self._again(doubtful)
        if failed := [key for key in doubtful if self._known[key].outcome == "infra_error"]:
            time.sleep(_PAUSE_S)
            self._again(failed)
        return [self._known[key] for key in self._keys]

    def _again(self, keys: list[str]) -> None:
        for key in keys:
            self._known[key] = self._pool.check_alone(self._jobs[key], after=self._known[key])
            self._cache.put(key, self._known[key])

    def _keep(self, key: str, future: Future[Verdict]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._cache.put(key, future.result())

"""A pool of checkers: one per thread. Doubtful jobs run again alone.

Guarantees: every job gets an answer, also if its program is hostile. A checker that stops answering is killed with all
processes that it started, and replaced. No process outlives `close`. A job that timed out by the clock is run again
with the machine to itself before the timeout counts, so load does not change verdicts.
"""

from __future__ import annotations

import json
import math
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.sandbox.checker_client import CheckerProcess
from evalkit.sandbox.verdict import (
    CHECKER_MEMORY_BYTES,
    EVALPLUS_MEMORY_BYTES,
    MEMORY_BYTES,
    RETRIED,
    CheckJob,
    Verdict,
)
from evalkit.sandbox.wire.messages import MAX_MESSAGE_BYTES, ChannelError, DeadlineError
from shards.runtime.machine import processor

_GRACE_S = 10.0
"""Time beyond the job's own deadline after which a checker is replaced, in seconds."""

_ASLEEP_SHARE = 0.05
"""Share of a processor below which a program slept, unless the kernel took the processor from it."""

_MAX_PATIENCE = 30.0
"""Largest multiple of the usual time by the clock that a crowded machine gets."""

_MIN_GAIN = 1.5
"""Least factor of more time for which a timeout by the clock is worth another run."""


def slept(verdict: Verdict, job: CheckJob) -> bool:
    """Return whether a program that timed out by the clock slept, so that more time would not help."""
    return verdict.cpu_s < _ASLEEP_SHARE * job.wall_s and not verdict.starved


def _patience(job: CheckJob, doubtful: Verdict) -> float:
    """Return the multiple of the usual time in which the program uses up its CPU time, twice over.

    The estimate uses the share of a processor that the program got in the doubtful run: other work may load the
    machine, also while the program runs alone. A sleeping program gets no more time.
    """
    if slept(doubtful, job):
        return 1.0
    share = doubtful.cpu_s / job.wall_s
    usual_s = job.wall_s / job.patience
    return min(_MAX_PATIENCE, max(1.0, 2.0 * job.cpu_limit_s / max(share, 1e-6) / usual_s))


class Pool:
    """Running checkers. Use it as a context manager."""

    def __init__(
        self,
        *,
        workers: int | None = None,
        strict: bool = False,
        libraries: Sequence[Path] = (),
        import_paths: Sequence[Path] = (),
    ) -> None:
        """Start the first checker and read which layers of confinement are on; other checkers start when needed.

        Args:
            workers: Number of checkers. If None, three for each two processors: a checker, its zygote and the guest
                take turns, and while one waits to be woken another has work.
            strict: Refuse to work unless every layer of confinement is on.
            libraries: Folders of packages, beside the standard library, that every program may import. Their code is
                trusted not to raise when it is imported. Programs read no file of them.
            import_paths: Folders that programs may read and import from, such as the one of installed packages. They
                must hold no solutions. Their code runs in guests alone.

        Raises:
            EvalError: No checker can be started, or a layer is off and `strict` is set.
        """
        self.workers = workers or math.ceil(1.5 * processor().usable_cpus)
        self._libraries = tuple(str(folder.resolve()) for folder in libraries)
        self._import_paths = tuple(str(folder.resolve()) for folder in import_paths)
        self._idle: list[CheckerProcess] = []
        self._all: set[CheckerProcess] = set()
        self._ending = False
        self._lock = threading.Lock()
        require_address_space()
        try:
            first = self._new_checker()
        except (ChannelError, DeadlineError, OSError) as error:
            raise EvalError(f"the confined executor did not start ({error}); 'evalkit doctor' shows more") from error
        self.layers = first.layers
        off = [layer for layer in self.layers if not layer.on]
        if strict and off:
            first.close()
            missing = "; ".join(f"{layer.name}: {layer.detail}" for layer in off)
            raise EvalError(
                f"--sandbox=strict: confinement is incomplete ({missing}); use --sandbox=auto to go on without"
            )
        self._idle.append(first)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="checker")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(kill=kind is not None)

    def submit(self, job: CheckJob) -> Future[Verdict]:
        """Check a program beside others. The verdict may be doubtful (`verdict.RETRIED`): see `check_alone`."""
        try:
            return self._threads.submit(self._check, job)
        except RuntimeError as error:
            raise _no_thread(error) from error

    def submit_request(self, request: dict[str, Any], *, program: str, wall_s: float) -> Future[dict[str, Any]]:
        """Hand any request to a checker.

        Args:
            request: See `host/checker.py`.
            program: The untrusted source in it, whose length is limited.
            wall_s: Time by the clock that the checker allows, in seconds.

        Returns:
            The answer; if the checker failed, an outcome of `verdict.RETRIED` and a detail.
        """
        try:
            return self._threads.submit(self._exchange, request, program, wall_s)
        except RuntimeError as error:
            raise _no_thread(error) from error

    def check_alone(self, job: CheckJob, *, after: Verdict | None = None) -> Verdict:
        """Check one program while no other of this pool runs. Call it when all futures are done.

        A program that was kept waiting for a processor is run again with more time by the clock, until it uses up its
        CPU time or its patience ends.

        Args:
            job: The program.
            after: The doubtful verdict of a run beside others.
        """
        if after is not None:
            job = replace(job, patience=_patience(job, after))
        while True:
            verdict = self.submit(job).result()
            patience = _patience(job, verdict) if verdict.outcome == "timeout_wall" else 0.0
            if patience < min(_MIN_GAIN * job.patience, _MAX_PATIENCE) or job.patience >= _MAX_PATIENCE:
                return verdict
            job = replace(job, patience=patience)

    def check_all(self, jobs: list[CheckJob]) -> Iterator[tuple[int, Verdict]]:
        """Yield (index, verdict) for every job: sure ones as they come, doubtful ones last, run alone."""
        futures = [self.submit(job) for job in jobs]
        doubtful = []
        for index, future in enumerate(futures):
            verdict = future.result()
            if verdict.outcome in RETRIED:
                doubtful.append(index)
            else:
                yield index, verdict
        for index in doubtful:
            yield index, self.check_alone(jobs[index], after=futures[index].result())

    def close(self, *, kill: bool = False) -> None:
        """End all checkers and wait for them: after the programs that run or, with `kill`, at once."""
        with self._lock:
            self._ending = True
            for checker in self._all if kill else ():
                checker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while self._idle:
            checker = self._idle.pop()
            self._all.discard(checker)
            checker.close()
        for checker in set(self._all):  # those that were taken out
            self.drop_checker(checker)

    def take_checker(self) -> CheckerProcess:
        """Start a checker for the caller's own use, which ends with the pool or by `drop_checker`.

        Raises:
            ChannelError, DeadlineError, OSError: It does not start.
        """
        return self._new_checker()

    def drop_checker(self, checker: CheckerProcess) -> None:
        """Kill a checker with all processes that it started, and do not use it again."""
        with self._lock:
            self._all.discard(checker)
        checker.close(kill=True)

    def _new_checker(self) -> CheckerProcess:
        """Start a checker.

        Raises:
            ChannelError, DeadlineError, OSError: It does not start.
        """
        checker = CheckerProcess(libraries=self._libraries, import_paths=self._import_paths)
        with self._lock:
            self._all.add(checker)
            if not self._ending:
                return checker
        self.drop_checker(checker)
        raise ChannelError("evalkit is ending")

    def _check(self, job: CheckJob) -> Verdict:
        return Verdict(**self._exchange({"check": job.to_dict()}, job.program, job.wall_s))

    def _exchange(self, request: dict[str, Any], program: str, wall_s: float) -> dict[str, Any]:
        """Have an idle or a new checker answer one request."""
        if (size := program_bytes(program)) > MAX_MESSAGE_BYTES:
            detail = f"a program of {size / 1e6:.3g} MB, limit {MAX_MESSAGE_BYTES / 1e6:.3g} MB"
            return {"outcome": "exception", "detail": detail}
        with self._lock:
            checker = self._idle.pop() if self._idle else None
        try:
            checker = checker or self._new_checker()
            answer = checker.exchange(request, deadline=time.monotonic() + wall_s + _GRACE_S)
        except (ChannelError, DeadlineError, OSError) as error:
            if checker is not None:
                self.drop_checker(checker)
            late = isinstance(error, DeadlineError)
            outcome = "timeout_wall" if late else "infra_error"
            return {"outcome": outcome, "detail": f"the check did not end: {error}"}
        with self._lock:
            self._idle.append(checker)
        return answer


def require_address_space() -> None:
    """Refuse to start where `ulimit -v` is below the limits of checkers or programs.

    Raises:
        EvalError: It is.
    """
    needed = max(CHECKER_MEMORY_BYTES, MEMORY_BYTES, EVALPLUS_MEMORY_BYTES)
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise EvalError(
            f"the limit on address space (ulimit -v) is {allowed / 1e6:,.0f} MB, evalkit needs {needed / 1e6:,.0f} MB; "
            "raise it with 'ulimit -v unlimited'"
        )


def _no_thread(error: RuntimeError) -> EvalError:
    return EvalError(f"no thread for a checker ({error}); raise the limit on processes (ulimit -u)")


def program_bytes(program: str) -> int:
    """Return the bytes that the program takes in a message; an estimate where it is far below the limit."""
    length = len(program)
    # JSON in ASCII takes at most twelve bytes for a character. The envelope of the message is small.
    return length if 12 * length < MAX_MESSAGE_BYTES else len(json.dumps(program)) + 4096

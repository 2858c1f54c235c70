"""Judge many programs: one judge per processor, jobs handed out, doubtful ones run again alone.

Guarantees: every job gets a verdict, whatever the programs do; a judge that stops answering is killed with all
it started and replaced; nothing outlives `close`. What timed out by the clock is run again with the machine to
itself before it counts, so that load does not change verdicts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.verdict import (
    CHECKER_MEMORY_BYTES,
    EVALPLUS_MEMORY_BYTES,
    MEMORY_BYTES,
    RETRIED,
    CheckJob,
    Verdict,
)
from evalkit.sandbox.wire.values import MAX_MESSAGE_BYTES, ChannelError, DeadlineError, wait_ready
from shards.runtime.machine import processor

_GRACE_S = 10.0
"""How much longer than the program's own deadline a judge may take before it is replaced."""

_START_S = 60.0

_ASLEEP = 0.01
"""Share of a processor below which a program was asleep, not kept waiting for one."""

_MOST_PATIENCE = 30.0
"""Most times that the usual time by the clock is waited when the machine is crowded."""


def _patience(job: CheckJob, doubtful: Verdict) -> float:
    """Return how many times the usual time by the clock lets the program use up its CPU time, twice over.

    From the share of a processor that it got at first: others may load the machine, also while it runs alone.
    """
    share = doubtful.cpu_s / job.wall_s
    if share < _ASLEEP:
        return 1.0
    return min(_MOST_PATIENCE, max(1.0, 2.0 * job.cpu_limit_s / share / job.wall_s))


class _Judge:
    """A running judge process. One thread at a time uses it."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parent.parent.parent)
        numpy = importlib.util.find_spec("numpy")
        folder = str(Path(numpy.origin).parent.parent) if numpy and numpy.origin else ""
        start = (
            f"import sys; sys.path.insert(0, {root!r})\nfrom evalkit.sandbox.host import checker\n"
            f"sys.path.remove({root!r})\nchecker.main(root={root!r}, numpy_folder={folder!r}, "
            f"memory_bytes={CHECKER_MEMORY_BYTES})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", "")},
            start_new_session=True,  # Ctrl-C is for evalkit, which then closes its judges
        )
        self._buffer = b""
        try:
            first = self._hear(time.monotonic() + _START_S)
            if "failed" in first:
                raise ChannelError(first["failed"])
            self.layers = [Layer(**layer) for layer in first["layers"]]
        except BaseException:
            self.close(kill=True)
            raise

    def judge(self, job: CheckJob) -> Verdict:
        """Have one program judged.

        Raises:
            ChannelError, DeadlineError: the judge is of no more use.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job.to_dict()).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChannelError(f"the judge ended ({error.strerror})") from None
        return Verdict(**self._hear(time.monotonic() + job.wall_s + _GRACE_S))

    def kill(self) -> None:
        """End it and what it started, from any thread; the thread that uses it closes it then."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, *, kill: bool = False) -> None:
        """End it: by closing its input, or by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kill:
            self.kill()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _hear(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            wait_ready(descriptor, write=False, deadline=deadline)
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise ChannelError("the judge ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class Pool:
    """Judges at work. Use it as a context manager."""

    def __init__(self, *, workers: int | None = None, strict: bool = False) -> None:
        """Start the first judge and see which layers hold; others start when needed.

        `workers` is the number of judges, three for two processors if None: a judge, its zygote and the program
        take turns, and while one waits to be woken another has work. `strict` refuses to go on unless every layer of
        confinement is on.

        Raises:
            EvalError: no judge can be started, or a layer is off and `strict` was asked for.
        """
        self.workers = workers or math.ceil(1.5 * processor().usable_cpus)
        self._idle: list[_Judge] = []
        self._all: set[_Judge] = set()
        self._ending = False
        self._lock = threading.Lock()
        require_address_space()
        try:
            first = self._new_judge()
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
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="judge")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(kill=kind is not None)

    def submit(self, job: CheckJob) -> Future[Verdict]:
        """Have a program judged beside others; see `alone` for what to do with a doubtful verdict."""
        return self._submit(job)

    def check_alone(self, job: CheckJob, *, after: Verdict | None = None) -> Verdict:
        """Judge one program while no other of ours runs. Call it when all futures are done.

        `after` is a doubtful verdict: a program that was kept waiting for a processor gets longer by the clock.
        """
        longer = replace(job, patience=_patience(job, after)) if after is not None else job
        return self._submit(longer).result()

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
        """End all judges and wait for them; with `kill`, at once, in place of after the programs that run."""
        with self._lock:
            self._ending = True
            for judge in self._all if kill else ():
                judge.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _submit(self, job: CheckJob) -> Future[Verdict]:
        try:
            return self._threads.submit(self._judge, job)
        except RuntimeError as error:
            raise EvalError(f"no thread for a judge ({error}); raise the limit on processes (ulimit -u)") from error

    def _new_judge(self) -> _Judge:
        """Start a judge.

        Raises:
            ChannelError, DeadlineError, OSError: it does not come up.
        """
        judge = _Judge()
        with self._lock:
            self._all.add(judge)
            if not self._ending:
                return judge
        self._drop(judge)
        raise ChannelError("evalkit is ending")

    def _drop(self, judge: _Judge) -> None:
        with self._lock:
            self._all.discard(judge)
        judge.close(kill=True)

    def _judge(self, job: CheckJob) -> Verdict:
        if (size := _program_bytes(job)) > MAX_MESSAGE_BYTES:
            detail = f"a program of {size / 1e6:.3g} MB, limit {MAX_MESSAGE_BYTES / 1e6:.3g} MB"
            return Verdict(outcome="exception", detail=detail)
        with self._lock:
            judge = self._idle.pop() if self._idle else None
        try:
            judge = judge or self._new_judge()
            verdict = judge.judge(job)
        except (ChannelError, DeadlineError, OSError) as error:
            if judge is not None:
                self._drop(judge)
            late = isinstance(error, DeadlineError)
            return Verdict(outcome="timeout_wall" if late else "infra_error", detail=f"the check did not end: {error}")
        with self._lock:
            self._idle.append(judge)
        return verdict


def require_address_space() -> None:
    """Refuse to start where `ulimit -v` leaves judges or programs less than their own limits.

    Raises:
        EvalError: it does.
    """
    needed = max(CHECKER_MEMORY_BYTES, MEMORY_BYTES, EVALPLUS_MEMORY_BYTES)
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise EvalError(
            f"the limit on address space (ulimit -v) is {allowed / 1e6:,.0f} MB, evalkit needs {needed / 1e6:,.0f} MB; "
            "raise it with 'ulimit -v unlimited'"
        )


def _program_bytes(job: CheckJob) -> int:
    """Return the bytes that the program takes in a message, roughly when it is far from the limit."""
    length = len(job.program)
    # JSON in ASCII takes at most twelve bytes for a character. The envelope of the message is small.
    return length if 12 * length < MAX_MESSAGE_BYTES else len(json.dumps(job.program)) + 4096

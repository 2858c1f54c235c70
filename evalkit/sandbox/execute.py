"""Outputs of untrusted programs: evaluate calls in the sandbox and return plain values.

    with Pool() as pool:
        programs = [ProgramCalls(program=source, calls=("f([1, 2], 3)", "f([], 0)")) for source in sources]
        for result in execute_calls(programs, pool=pool, limits=CallLimits(call_cpu_s=0.1)):
            ...

Programs and calls are untrusted. Both run in a guest process with every layer of confinement, as in the pass/fail
check, and through the same session (`host/session.py`). Outputs are plain forms, made and compared outside the guest.
A call that hangs or ends its guest costs no other call its output: a new guest goes on with the next call.

The state that a call sees, in the order of cost:

    shared   the program's own statements run once; a call sees the changes of the calls before it
    fresh    the statements run before each call, in a new namespace of the same interpreter, with `random` seeded again
    process  each call has a guest of its own, so not even a changed module reaches the next call

NOT guaranteed: that a hostile program computed its output. A program may return anything, may answer a call before the
call is made, and may misreport its CPU time within the limits. It cannot change how outputs are compared.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import MEMORY_BYTES, RETRIED
from evalkit.sandbox.wire.values import decode
from evalkit.text import one_line

STATES = ("shared", "fresh", "process")

_IN_FLIGHT = 64
"""Programs per checker that are submitted ahead of the one that is yielded next: one that hangs must not hold up all
checkers."""

_NUM_RETRIES = 2
"""Repeats of a program at which the machine failed."""

_PAUSE_S = 0.5
_PATIENCE = 8.0
"""Multiple of the usual time by the clock for a repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramCalls:
    """One program and the calls to evaluate in its namespace."""

    program: str
    """The untrusted source of a module."""
    calls: tuple[str, ...]
    """Untrusted sources: expressions such as `f([1, 2], 3)`, or statements, whose value is None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits of one program's calls."""

    call_cpu_s: float = 1.0
    """CPU time of one call, in seconds. The host adds 0.02 s for encoding and sending the answer."""
    program_cpu_s: float = 10.0
    """CPU time of all calls of a program and of its own statements, in seconds. When it is used up, the other calls are
    not run and have the outcome `timeout_cpu`. A low limit bounds the cost of programs that hang in every call."""
    after_timeout_cpu_s: float | None = None
    """CPU time of a call that follows one beyond its time, in seconds, so that programs that hang in every call cost
    less; None for `call_cpu_s`."""
    most_timeouts: int | None = None
    """Consecutive calls beyond their time after which the other calls are not run and have the outcome
    `timeout_cpu`; None for no such limit."""
    memory_bytes: int = MEMORY_BYTES
    """Address space of a guest."""
    value_bytes: int = 1 << 16
    """Longest answer whose plain form is returned, in bytes. A longer value has only a digest and a text."""

    def __post_init__(self) -> None:
        for name in ("call_cpu_s", "program_cpu_s", "memory_bytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if self.after_timeout_cpu_s is not None and not 0 < self.after_timeout_cpu_s <= self.call_cpu_s:
            raise ValueError(f"after_timeout_cpu_s is {self.after_timeout_cpu_s}, expected at most call_cpu_s or None")
        if self.most_timeouts is not None and self.most_timeouts < 1:
            raise ValueError(f"most_timeouts is {self.most_timeouts}, expected a positive number or None")

    @property
    def wall_s(self) -> float:
        """Longest time by the clock for one program, in seconds."""
        return 3.0 * self.program_cpu_s + 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CallResult:
    """The result of one call."""

    outcome: str
    """`value`, or one of `verdict.OUTCOMES` other than `pass` and `wrong`."""
    digest: str = ""
    """Of a value: equal values of different programs have equal digests (`wire/canonical.py`)."""
    text: str = ""
    """One line for people: the start of the value's repr, the exception, or the limit."""
    exception: str = ""
    """Name of the exception's nearest built-in type. `UnsupportedValueError`: the value has no plain form."""
    cpu_s: float = 0.0
    """CPU seconds that the guest reports; for a call without an answer, the kernel's count."""
    form: Any = None
    """Plain form of the value (`wire/values.py`), if it is no longer than `CallLimits.value_bytes`."""
    has_form: bool = False
    """Whether `form` is there: the form of None is None."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", one_line(self.text))

    def value(self) -> Any:
        """Return the plain value.

        Raises:
            ValueError: The result holds no plain form, or one that this process cannot rebuild.
        """
        if not self.has_form:
            raise ValueError(f"no plain value: {self.text or self.outcome}")
        return decode(self.form)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramResult:
    """The results of one program's calls."""

    outcome: str
    """`ran` if the program's own statements ended, else their outcome, which every call then has too."""
    detail: str = ""
    """One line for people where the statements did not end."""
    cpu_s: float = 0.0
    """CPU seconds of all guests, as the kernel counts them."""
    calls: tuple[CallResult, ...]
    """One result for each call, in order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail))


def execute_calls(
    programs: Iterable[ProgramCalls],
    *,
    pool: Pool,
    limits: CallLimits | None = None,
    state: str = "fresh",
) -> Iterator[ProgramResult]:
    """Evaluate the calls of many programs on the checkers of `pool`.

    Results come in the order of `programs`, each as soon as it and those before it are there. `programs` is read
    lazily, so a caller that stores results can stop at any time and go on with the programs that it has no result for.

    Args:
        programs: The programs and their calls.
        pool: A running pool.
        limits: Limits of each program; the defaults of `CallLimits` if None.
        state: The state that a call sees, one of `STATES`.

    Yields:
        One result for each program. An `infra_error` in it was tried again twice.

    Raises:
        ValueError: `state` is none of `STATES`.
    """
    if state not in STATES:
        raise ValueError(f"state is {state!r}, expected one of {', '.join(STATES)}")
    return _results(programs, pool, limits or CallLimits(), state)


def _results(programs: Iterable[ProgramCalls], pool: Pool, limits: CallLimits, state: str) -> Iterator[ProgramResult]:
    running: deque[tuple[ProgramCalls, Future[dict[str, Any]]]] = deque()
    try:
        for program in programs:
            running.append((program, _submit(program, pool, limits, state)))
            if len(running) > _IN_FLIGHT * pool.workers:
                yield _finish(*running.popleft(), pool, limits, state)
        while running:
            yield _finish(*running.popleft(), pool, limits, state)
    finally:
        for _, future in running:
            future.cancel()


def _submit(
    program: ProgramCalls, pool: Pool, limits: CallLimits, state: str, *, patience: float = 1.0
) -> Future[dict[str, Any]]:
    wall_s = patience * limits.wall_s
    guest_calls = 1 if state == "process" else max(1, len(program.calls))
    job = asdict(program) | asdict(limits) | {"fresh": state == "fresh", "guest_calls": guest_calls, "wall_s": wall_s}
    source = "\n".join((program.program, *program.calls))
    return pool.submit_request({"calls": job}, program=source, wall_s=wall_s)


def _finish(
    program: ProgramCalls, future: Future[dict[str, Any]], pool: Pool, limits: CallLimits, state: str
) -> ProgramResult:
    """Wait for a result; repeat a program at which the machine may have failed, with more time by the clock."""
    answer = future.result()
    for _ in range(_NUM_RETRIES):
        if not answer.get("doubtful", answer["outcome"] in RETRIED):
            break
        time.sleep(_PAUSE_S)
        answer = _submit(program, pool, limits, state, patience=_PATIENCE).result()
    return _result(program, answer)


def _result(program: ProgramCalls, answer: dict[str, Any]) -> ProgramResult:
    """Return the result in a checker's answer; an answer without calls is the checker's own failure."""
    outcome, detail = answer["outcome"], answer.get("detail", "")
    if "calls" in answer:
        calls = tuple(CallResult(**fields, has_form="form" in fields) for fields in answer["calls"])
    else:
        calls = (CallResult(outcome=outcome, text=detail),) * len(program.calls)
    return ProgramResult(outcome=outcome, detail=detail, cpu_s=answer.get("cpu_s", 0.0), calls=calls)

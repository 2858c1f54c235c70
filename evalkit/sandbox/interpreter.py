"""Python sessions for untrusted code: run one cell after another, as a notebook does, in the sandbox.

    with Pool() as pool, Interpreter(pool) as interpreter:
        session = interpreter.open()
        session.run("x = [1, 2]")
        session.run("print(len(x))\\nx").output  # "2\\n[1, 2]"
        session.close()

Each session has a guest process of its own with every layer of confinement: it reads only Python's library and numpy,
and writes nothing. Names live from cell to cell. What a cell prints, the value of its last expression and its traceback
are text of limited length. A cell that crashes or exceeds a limit ends the guest; the next cell starts a new one, and
its result says so. Sessions share nothing, and no process outlives the pool.

Sessions are spread over as many checkers as the pool has. Cells of one checker run one after another. A checker keeps
the guests of `MOST_GUESTS` sessions alive; beyond that, the session that was idle longest loses its state. Nothing runs
between cells: a cell that leaves threads behind ends the guest when it has ended.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.sandbox.checker_client import CheckerProcess
from evalkit.sandbox.pool import Pool, program_bytes
from evalkit.sandbox.verdict import OUTCOMES
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError
from evalkit.text import one_line

_GRACE_S = 10.0
"""Time beyond the cell's own limit after which a checker is replaced, in seconds."""

_MOST_CELL_BYTES = 1 << 20
"""Longest cell, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """Limits of a session."""

    call_cpu_s: float = 2.0
    """CPU time of one cell, in seconds."""
    session_cpu_s: float = 20.0
    """CPU time of all cells of a guest, in seconds."""
    wall_s: float = 30.0
    """Time by the clock of one cell, in seconds, on a machine that other work loads. A cell that sleeps is stopped
    shortly after `call_cpu_s`."""
    memory_bytes: int = 512 << 20
    """Address space of the guest."""
    characters: int = 2000
    """Longest text that is kept of what a cell prints, and of its last value or traceback."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """The result of one cell."""

    outcome: str
    """`ran`, or one of `verdict.OUTCOMES` other than `pass` and `wrong`."""
    output: str = ""
    """What the cell printed, then the value of its last expression, or its traceback. The code can forge it."""
    detail: str = ""
    """One line for people: the exception or the limit."""
    cpu_s: float = 0.0
    """CPU seconds, by the kernel's clock."""
    is_alive: bool = False
    """The next cell finds the state that this one left."""
    is_new: bool = True
    """No earlier cell left state: the first cell, or the first one after the state was lost."""

    def __post_init__(self) -> None:
        if self.outcome not in ("ran", *OUTCOMES):
            raise ValueError(f"outcome {self.outcome!r} is neither ran nor one of {', '.join(OUTCOMES)}")
        object.__setattr__(self, "detail", one_line(self.detail))


class Interpreter:
    """Sessions on the sandbox of a pool. Use it as a context manager; safe to use from many threads."""

    def __init__(self, pool: Pool, limits: SessionLimits | None = None) -> None:
        """Prepare; checkers start when the first cells run. `limits` hold for all sessions."""
        self._limits = limits or SessionLimits()
        self._lanes = [_Lane(pool) for _ in range(pool.workers)]
        self._numbers = itertools.count()

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> InterpreterSession:
        """Begin a session; its process starts with its first cell."""
        number = next(self._numbers)
        return InterpreterSession(self._lanes[number % len(self._lanes)], number, self._limits)

    def close(self) -> None:
        """Kill all sessions."""
        for lane in self._lanes:
            lane.close()


class InterpreterSession:
    """One session. Cells of a session are run one after another."""

    def __init__(self, lane: _Lane, number: int, limits: SessionLimits) -> None:
        self._lane, self._number, self._limits = lane, number, limits
        self._had_state = False

    def run(self, source: str) -> CellResult:
        """Run one cell and wait for its result.

        Args:
            source: Untrusted Python source; the value of a last expression is part of the output.

        Returns:
            The result, also if the code is hostile or the machine fails (`infra_error`).
        """
        if program_bytes(source) > _MOST_CELL_BYTES:
            detail = f"the code has more than {_MOST_CELL_BYTES:,} bytes"
            return CellResult(outcome="exception", detail=detail, is_alive=self._had_state, is_new=not self._had_state)
        request = {"cell": source, "session": self._number} | asdict(self._limits)
        result = CellResult(**self._lane.exchange(request, wall_s=self._limits.wall_s))
        self._had_state = result.is_alive
        return result

    def close(self) -> None:
        """Kill the session's process; one that runs a cell is killed when the cell ends."""
        self._lane.end(self._number)


class _Lane:
    """One checker and the sessions on it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._checker: CheckerProcess | None = None
        self._ended: list[int] = []
        self._is_closed = False

    def exchange(self, request: dict[str, Any], *, wall_s: float) -> dict[str, Any]:
        """Have the checker run a cell; a checker that fails is replaced, and its sessions lose their state."""
        with self._lock:
            answer = self._exchange(request, wall_s=wall_s)
        self._flush()
        return answer

    def end(self, number: int) -> None:
        """End a session: at once, or when the cell that runs has ended."""
        self._ended.append(number)
        self._flush()

    def _flush(self) -> None:
        """End closed sessions, unless another thread uses the checker: that one does it then."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                if self._checker is None:  # its sessions died with it
                    self._ended.clear()
                else:
                    self._exchange({"cell": None}, wall_s=_GRACE_S)
            finally:
                self._lock.release()

    def _exchange(self, request: dict[str, Any], *, wall_s: float) -> dict[str, Any]:
        try:
            if self._is_closed:
                raise ChannelError("the interpreter is closed")
            self._checker = self._checker or self._pool.take_checker()
            ended, self._ended = self._ended, []
            deadline = time.monotonic() + wall_s + _GRACE_S
            return self._checker.exchange(request | {"ended": ended}, deadline=deadline)
        except (ChannelError, DeadlineError, OSError) as error:
            self._drop()
            return {"outcome": "infra_error", "detail": f"the cell did not end: {error}"}

    def close(self) -> None:
        """Kill the checker with all its sessions; waits for no cell."""
        self._is_closed = True
        checker = self._checker
        if checker is not None:
            checker.kill()
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._checker is not None:
            self._pool.drop_checker(self._checker)
            self._checker = None

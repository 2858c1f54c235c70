"""The pass/fail check: run the task's own test here, on values that the guest sends.

Where the test calls the function under test, a proxy sends the arguments to the guest and returns the plain value of
the answer. A task whose test passes objects is `inline`: its test runs in the guest, and its verdict is flagged.
"""

from __future__ import annotations

import builtins
import random
import traceback
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from evalkit.sandbox.host.call_prefetch import prefetchable_calls
from evalkit.sandbox.host.guest_exit import PASS, Outcome
from evalkit.sandbox.host.program_text import stand_in
from evalkit.sandbox.host.session import Session, exception_outcome, short_text


class AssertionCheck:
    """The check of one job (the fields of `verdict.CheckJob`) by its test."""

    def __init__(self, job: dict[str, Any], *, prefetch: bool = True) -> None:
        """Check `job`; `prefetch` sends the calls that the test spells out ahead of their turn."""
        self._job, self._prefetch = job, prefetch

    def run(self, session: Session) -> Outcome:
        """Start the program, run the test, and return `PASS` if it ran to its end.

        Raises:
            Exception: The check failed; `outcome_of` names the reason.
        """
        job = self._job
        first = {"program": job["program"], "names": job["entry_points"], "after": ""}
        prefetch: tuple[bytes, ...] = ()
        if job["inline"]:
            first["after"] = f"\n{job['prelude']}\n{job['test']}"
        else:
            first["after"] = "\n" + stand_in(job["test"])
            prefetch = prefetchable_calls(job["test"], tuple(job["entry_points"])) if self._prefetch else ()
        session.value(session.ask(first, prefetch=prefetch))
        if job["inline"]:
            return PASS
        namespace: dict[str, Any] = {"__name__": "check", "__builtins__": builtins}
        random.seed(0)
        exec(_compiled(job["prelude"], "<prelude>"), namespace)
        namespace |= {name: _proxy(session, name) for name in job["entry_points"]}
        exec(_compiled(job["test"], "<test>"), namespace)
        return session.failure or PASS

    def outcome_of(self, error: BaseException, session: Session) -> Outcome:
        """Return the outcome that an exception of `run` stands for."""
        if error is session.raised:
            outcome = exception_outcome(error)
            if self._job["inline"] and error.__notes__[0] == "AssertionError":
                return Outcome("wrong", outcome.detail)
            return outcome
        if isinstance(error, OSError | ImportError):  # raised on this side: a file of the host's, never the program's
            return Outcome("infra_error", f"the checker failed: {type(error).__name__}: {error}")
        source_line = ""
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == "<test>":
                source_line = self._job["test"].splitlines()[line - 1].strip()
        if isinstance(error, AssertionError):
            return Outcome("wrong", short_text(f"{source_line}  # {session.last_call}"))
        text = f"{type(error).__name__}: {error}, in: {source_line}  # {session.last_call}"
        return Outcome("exception", short_text(text))


def _proxy(session: Session, name: str) -> Callable[..., Any]:
    """Return the function that stands for the program's function `name` in the test."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return session.call(name, args, kwargs)

    call.__name__ = name
    return call


@lru_cache(maxsize=4096)
def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)

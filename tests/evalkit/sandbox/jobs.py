"""Work orders for tests: a program that defines `f`, checked by one assertion."""

from __future__ import annotations

from typing import Any

from evalkit.sandbox.verdict import CheckJob


def job(program: str, test: str = "assert f(1) == 2", **settings: Any) -> CheckJob:
    """Return the work order for `program`; `settings` are fields of `CheckJob`."""
    return CheckJob(program=program, entry_points=("f",), prelude="", test=test, **settings)

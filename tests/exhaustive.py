"""Cases that only an exhaustive run covers: every case, where a fixed share of them is the rule.

`TEACHERLESS_EXHAUSTIVE=1 make test` runs all of them, as before a release.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

EXHAUSTIVE = os.environ.get("TEACHERLESS_EXHAUSTIVE", "") not in ("", "0")
exhaustive = pytest.mark.skipif(
    not EXHAUSTIVE, reason="repeats other cases at a high cost: set TEACHERLESS_EXHAUSTIVE=1"
)
"""Mark of a test or a case that needs much time and shows little that the others do not."""
_Case = TypeVar("_Case")


def share(cases: Sequence[_Case], *, every: int, first: int = 0) -> Sequence[_Case]:
    """Return each `every`-th case from `first` on; in an exhaustive run, all."""
    return cases if EXHAUSTIVE else cases[first::every]

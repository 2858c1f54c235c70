"""Share of the tasks that one worker runs.

Workers do not communicate. Worker I of N takes every N-th task. A finished shard is the only mark of completion, so a
later start may use another N.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from teacher_dump.errors import DumpError

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Share:
    """Worker `index` of `of`, counted from 1."""

    index: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse "I/N".

        Raises:
            DumpError: The text is not of that form, or I is not between 1 and N.
        """
        first, _, second = text.partition("/")
        if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        raise DumpError(f"--worker {text}: expected I/N with I from 1 to N, as in 3/8")

    def of_tasks(self, tasks: Iterable[_Item]) -> list[_Item]:
        """Return this worker's tasks: every N-th, from the I-th on."""
        return [task for number, task in enumerate(tasks) if number % self.of == self.index - 1]

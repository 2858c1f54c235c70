"""Semaphores among threads, in place of the C module `_multiprocessing`.

Semaphores of that module are files in /dev/shm, which a confined program may not create. A program has no second
process to share them with, so a semaphore among its threads is equivalent. `ThreadPool` and the locks, events and
queues of `multiprocessing` work with it. Pools of processes stay refused.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

RECURSIVE_MUTEX, SEMAPHORE = 0, 1
flags: dict[str, int] = {}
"""The platform's features, as in the C module."""


def sem_unlink(name: str) -> None:
    """Do nothing: these semaphores have no names."""


class SemLock:
    """A counting semaphore, or a lock that its owner may take again. After Modules/_multiprocessing/semaphore.c."""

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        import threading  # only programs that create a semaphore pay for the import

        self.kind, self.maxvalue = kind, maxvalue
        self.name, self.handle = None, 0
        self._value, self._taken, self._owner = value, 0, 0
        self._changed = threading.Condition(threading.Lock())
        self._current = threading.get_ident

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; return whether that succeeded within `timeout` seconds."""
        if self.kind == RECURSIVE_MUTEX and self._is_mine():
            self._taken += 1
            return True
        with self._changed:
            longest = None if timeout is None else max(0.0, timeout)
            if not self._changed.wait_for(lambda: self._value > 0, longest if block else 0.0):
                return False
            self._value -= 1
            self._taken += 1
            self._owner = self._current()
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release it.

        Raises:
            AssertionError: Another thread owns the lock.
            ValueError: It was released too often.
        """
        if self.kind == RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._taken > 1:
                self._taken -= 1
                return
        with self._changed:
            if self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._taken -= 1
            self._value += 1
            self._changed.notify()

    def _count(self) -> int:
        return self._taken

    def _is_mine(self) -> bool:
        return self._taken > 0 and self._owner == self._current()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        self._taken = 0

    @staticmethod
    def _rebuild(*state: Any) -> SemLock:
        raise OSError("a semaphore of a confined program has no second process")

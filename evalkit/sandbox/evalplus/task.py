"""One of EvalPlus' tasks, ready to judge: inputs as messages, what the reference answers, and how long it takes.

The reference is pinned data, so it runs in the judge. It runs once on each machine: the bytes of its answers and the
CPU time of each call are kept in a folder. Expected values never leave the judge.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import io
import json
import marshal
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from evalkit.sandbox.evalplus.batches import MARSHAL_VERSION, snapshot
from evalkit.sandbox.evalplus.inputs import arguments
from evalkit.sandbox.evalplus.rules import FLOAT_ATOL, is_floats, presence

LEAST_S = 1.0
"""Least CPU time that one call may take, in seconds (EvalPlus: DEFAULT_MIN_TIME_LIMIT)."""
FACTOR = 4.0
"""How many times the reference's CPU time one call may take (EvalPlus: DEFAULT_GT_TIME_LIMIT_FACTOR)."""
MOST_S = 60.0
"""CPU time for all base inputs, and again for all added ones, in seconds."""
QUICK_S = 0.05
"""CPU time of a call of the reference up to which it is run as a program as well, in seconds."""
SUITES = ("base", "plus")
"""A task's own inputs, and those that EvalPlus added. Each has its own limits, as if in its own process."""

_FORMAT = 2  # of kept answers
_WHOLE_BYTES = 1024
"""Answers up to this length are kept themselves, of longer ones only a digest."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a reference does with the inputs of one suite. A call that has no plain answer has None for it."""

    cpu_s: list[float]
    """CPU seconds of each call."""
    data: list[bytes | None]
    """Marshal data of each answer (`batches.snapshot`), if it is short."""
    digests: list[bytes | None]
    """Digest of that data, if it is long."""
    floats_from: int
    """The first input whose answer brings a tolerance with it; the number of inputs if there is none."""


class Suite:
    """The base or the added inputs of one task."""

    def __init__(self, row: dict[str, Any], suite: str, expected: Expected, *, places: list[int] | None = None) -> None:
        """Take the inputs of a row's suite, or only those at `places`; `expected` holds as many."""
        self._row, self.name, self._expected, self._places = row, suite, expected, places
        self.limits_s = [max(LEAST_S, FACTOR * taken) for taken in expected.cpu_s]
        """CPU seconds that each call may take."""
        self.total_s = min(MOST_S, sum(self.limits_s))
        """CPU seconds that all calls may take together."""
        self.apart = [place for place, limit in enumerate(self.limits_s) if limit > LEAST_S]
        """Inputs with a limit of their own."""

    def quick(self) -> Suite:
        """Return the inputs on which the reference takes little time."""
        whole = self._expected
        places = [place for place, taken in enumerate(whole.cpu_s) if taken <= QUICK_S]
        expected = Expected(
            [whole.cpu_s[place] for place in places],
            [whole.data[place] for place in places],
            [whole.digests[place] for place in places],
            bisect_left(places, whole.floats_from),
        )
        return Suite(self._row, self.name, expected, places=places)

    def __len__(self) -> int:
        return len(self.limits_s)

    @cached_property
    def _inputs(self) -> list[list[Any]]:
        inputs = arguments(self._row, self.name)
        return inputs if self._places is None else [inputs[place] for place in self._places]

    @cached_property
    def message(self) -> bytes:
        """All inputs as marshal data."""
        return marshal.dumps(self._inputs, MARSHAL_VERSION)

    def args(self, place: int) -> list[Any]:
        """Return the arguments of one call, a copy."""
        args: list[Any] = copy.deepcopy(self._inputs[place])
        return args

    def tolerance(self, place: int) -> float:
        """Return the absolute tolerance at one input."""
        own = float(self._row["atol"])
        return FLOAT_ATOL if own == 0 and place >= self._expected.floats_from else own

    def matches(self, place: int, data: bytes) -> bool:
        """Say whether the marshal data of an answer is that of the expected one."""
        if (digest := self._expected.digests[place]) is not None:
            return hashlib.blake2b(data).digest() == digest
        return data == self._expected.data[place]

    def wanted(self, place: int) -> Any:
        """Return the expected answer."""
        data = self._expected.data[place]
        return marshal.loads(data) if data is not None else _answer(self._row, self.args(place))


@dataclass(frozen=True, slots=True)
class PlusTask:
    """A row of EvalPlus' data and its two suites."""

    task_id: str
    entry_point: str
    suites: tuple[Suite, ...]


@lru_cache(maxsize=1024)
def load(path: str, sha256: str, task_id: str, cache: str | None, machine: str) -> PlusTask:
    """Read a task from the file `path` (of digest `sha256`), and its reference's answers from `cache` if there.

    `machine` names what CPU times hold for.
    """
    row = rows(path)[task_id]
    kept = None
    if cache is not None:
        parts = [_FORMAT, sha256, task_id, machine, sys.version, marshal.version]
        kept = os.path.join(cache, f"expected-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.bin")
    expected = _read(kept)
    if expected is None:
        expected = [_run(row, suite) for suite in SUITES]
        _keep(kept, expected)
    suites = tuple(Suite(row, name, of_suite) for name, of_suite in zip(SUITES, expected, strict=True))
    return PlusTask(task_id=task_id, entry_point=row["entry_point"], suites=suites)


@lru_cache(maxsize=4)
def rows(path: str) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return {row["task_id"]: row for row in map(json.loads, stream)}


@lru_cache(maxsize=4)
def _function(source: str, name: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "reference"}
    exec(compile(source, "<reference>", "exec"), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def _answer(row: dict[str, Any], args: list[Any]) -> Any:
    function = _function(row["prompt"] + row["canonical_solution"], row["entry_point"])
    with contextlib.redirect_stdout(io.StringIO()):
        value = function(*args)
    return value is not None if presence(row["task_id"], row["entry_point"]) else value


def _run(row: dict[str, Any], suite: str) -> Expected:
    """Run the reference on every input of a suite."""
    inputs = copy.deepcopy(arguments(row, suite))
    expected = Expected([], [], [], len(inputs))
    floats_from = len(inputs)
    for place, args in enumerate(inputs):
        started = time.process_time()
        value = _answer(row, args)
        expected.cpu_s.append(time.process_time() - started)
        if floats_from == len(inputs) and is_floats(value):
            floats_from = place
        data = snapshot(value)
        long = data is not None and len(data) > _WHOLE_BYTES
        expected.data.append(None if long else data)
        expected.digests.append(hashlib.blake2b(data).digest() if data is not None and long else None)
    return Expected(expected.cpu_s, expected.data, expected.digests, floats_from)


def _read(kept: str | None) -> list[Expected] | None:
    """Read what `_keep` wrote; None if it is not there or not whole."""
    if kept is None:
        return None
    with contextlib.suppress(OSError), open(kept, "rb") as stream:
        digest, data = stream.read(64), stream.read()
        if hashlib.blake2b(data).digest() == digest:
            return [Expected(*fields) for fields in marshal.loads(data)]
    return None


def _keep(kept: str | None, expected: list[Expected]) -> None:
    """Write answers, complete or not at all; a folder that cannot be written is not an error."""
    if kept is None:
        return
    data = marshal.dumps([[one.cpu_s, one.data, one.digests, one.floats_from] for one in expected], MARSHAL_VERSION)
    temporary = f"{kept}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        with open(temporary, "wb") as stream:
            stream.write(hashlib.blake2b(data).digest() + data)
        os.replace(temporary, kept)

"""One task of EvalPlus, ready to check: inputs as messages, the reference's answers, and its time.

The reference is pinned data, so it runs in the checker. It runs once on each machine: the bytes of its answers and the
CPU time of each call are kept in a cache folder. Expected values never leave the checker.
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
"""Least limit of CPU time of one call, in seconds (EvalPlus: DEFAULT_MIN_TIME_LIMIT)."""
FACTOR = 4.0
"""Limit of one call as a multiple of the reference's CPU time (EvalPlus: DEFAULT_GT_TIME_LIMIT_FACTOR)."""
MOST_S = 60.0
"""CPU time for all base inputs, and again for all added ones, in seconds."""
QUICK_S = 0.05
"""Longest CPU time of a reference call that `Suite.quick` keeps, in seconds."""
SUITES = ("base", "plus")
"""A task's own inputs, and the inputs that EvalPlus added. Each suite has its own limits, as if in its own process."""

_FORMAT = 2  # of cached answers
_WHOLE_BYTES = 1024
"""Answers up to this length are kept themselves; of longer ones only a digest is kept."""


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """A reference's answers to the inputs of one suite. An answer without a plain form is None."""

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

    def __init__(
        self, row: dict[str, Any], suite: str, answers: ExpectedAnswers, *, places: list[int] | None = None
    ) -> None:
        """Take inputs of a row of EvalPlus' data.

        Args:
            row: The row.
            suite: Name of the suite, one of `SUITES`.
            answers: The reference's answers to these inputs.
            places: Indices of the inputs to take; all if None.
        """
        self._row, self.name, self._answers, self._places = row, suite, answers, places
        self.limits_s = [max(LEAST_S, FACTOR * cpu_s) for cpu_s in answers.cpu_s]
        """CPU seconds that each call may take."""
        self.total_s = min(MOST_S, sum(self.limits_s))
        """CPU seconds that all calls may take together."""
        self.apart = [place for place, limit in enumerate(self.limits_s) if limit > LEAST_S]
        """Inputs with a limit of their own."""

    def quick(self) -> Suite:
        """Return the inputs on which the reference takes little time."""
        whole = self._answers
        places = [place for place, cpu_s in enumerate(whole.cpu_s) if cpu_s <= QUICK_S]
        answers = ExpectedAnswers(
            [whole.cpu_s[place] for place in places],
            [whole.data[place] for place in places],
            [whole.digests[place] for place in places],
            bisect_left(places, whole.floats_from),
        )
        return Suite(self._row, self.name, answers, places=places)

    def __len__(self) -> int:
        return len(self.limits_s)

    @cached_property
    def _inputs(self) -> list[list[Any]]:
        inputs = arguments(self._row, self.name)
        return inputs if self._places is None else [inputs[place] for place in self._places]

    @cached_property
    def message(self) -> bytes:
        """The inputs as marshal data."""
        return marshal.dumps(self._inputs, MARSHAL_VERSION)

    def args(self, place: int) -> list[Any]:
        """Return the arguments of one call, a copy."""
        args: list[Any] = copy.deepcopy(self._inputs[place])
        return args

    def tolerance(self, place: int) -> float:
        """Return the absolute tolerance at one input."""
        own = float(self._row["atol"])
        return FLOAT_ATOL if own == 0 and place >= self._answers.floats_from else own

    def matches(self, place: int, data: bytes) -> bool:
        """Say whether the marshal data of an answer is that of the expected one."""
        if (digest := self._answers.digests[place]) is not None:
            return hashlib.blake2b(data).digest() == digest
        return data == self._answers.data[place]

    def expected(self, place: int) -> Any:
        """Return the expected answer at one input."""
        data = self._answers.data[place]
        return marshal.loads(data) if data is not None else _reference_answer(self._row, self.args(place))


@dataclass(frozen=True, slots=True)
class PlusTask:
    """A row of EvalPlus' data and its two suites."""

    task_id: str
    entry_point: str
    suites: tuple[Suite, ...]


@lru_cache(maxsize=1024)
def load(path: str, sha256: str, task_id: str, cache: str | None, machine: str) -> PlusTask:
    """Return a task, with its reference's answers from the cache where they are there.

    Args:
        path: File of EvalPlus' data.
        sha256: Digest of that file.
        task_id: Id of the task.
        cache: Folder that keeps answers, or None.
        machine: Name of the machine that the CPU times hold for.
    """
    row = rows(path)[task_id]
    cache_file = None
    if cache is not None:
        parts = [_FORMAT, sha256, task_id, machine, sys.version, marshal.version]
        cache_file = os.path.join(cache, f"expected-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.bin")
    answers = _read_answers(cache_file)
    if answers is None:
        answers = [_run_reference(row, suite) for suite in SUITES]
        _write_answers(cache_file, answers)
    suites = tuple(Suite(row, name, of_suite) for name, of_suite in zip(SUITES, answers, strict=True))
    return PlusTask(task_id=task_id, entry_point=row["entry_point"], suites=suites)


@lru_cache(maxsize=4)
def rows(path: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a file of EvalPlus' data, by task id."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return {row["task_id"]: row for row in map(json.loads, stream)}


@lru_cache(maxsize=4)
def _function(source: str, name: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "reference"}
    exec(compile(source, "<reference>", "exec"), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def _reference_answer(row: dict[str, Any], args: list[Any]) -> Any:
    function = _function(row["prompt"] + row["canonical_solution"], row["entry_point"])
    with contextlib.redirect_stdout(io.StringIO()):
        value = function(*args)
    return value is not None if presence(row["task_id"], row["entry_point"]) else value


def _run_reference(row: dict[str, Any], suite: str) -> ExpectedAnswers:
    """Run the reference on every input of a suite."""
    inputs = copy.deepcopy(arguments(row, suite))
    answers = ExpectedAnswers([], [], [], len(inputs))
    floats_from = len(inputs)
    for place, args in enumerate(inputs):
        started = time.process_time()
        value = _reference_answer(row, args)
        answers.cpu_s.append(time.process_time() - started)
        if floats_from == len(inputs) and is_floats(value):
            floats_from = place
        data = snapshot(value)
        long = data is not None and len(data) > _WHOLE_BYTES
        answers.data.append(None if long else data)
        answers.digests.append(hashlib.blake2b(data).digest() if data is not None and long else None)
    return ExpectedAnswers(answers.cpu_s, answers.data, answers.digests, floats_from)


def _read_answers(path: str | None) -> list[ExpectedAnswers] | None:
    """Return the answers that `_write_answers` wrote; None if the file is absent or damaged."""
    if path is None:
        return None
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        digest, data = stream.read(64), stream.read()
        if hashlib.blake2b(data).digest() == digest:
            return [ExpectedAnswers(*fields) for fields in marshal.loads(data)]
    return None


def _write_answers(path: str | None, answers: list[ExpectedAnswers]) -> None:
    """Write answers, complete or not at all; a folder that cannot be written is not an error."""
    if path is None:
        return
    fields = [[suite.cpu_s, suite.data, suite.digests, suite.floats_from] for suite in answers]
    data = marshal.dumps(fields, MARSHAL_VERSION)
    temporary = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        with open(temporary, "wb") as stream:
            stream.write(hashlib.blake2b(data).digest() + data)
        os.replace(temporary, path)

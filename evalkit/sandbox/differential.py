"""Does it agree with the reference? EvalPlus' form of a check: inputs, a reference, a tolerance.

`Job.inputs` names a row of EvalPlus' data: {"path", "sha256", "task_id", "cache"}. The judge reads the row, runs the
reference (pinned data, so trusted) on its inputs once, and compares every answer. Inputs cross the wall in
batches; expected values never leave the judge.

The rules of comparing are EvalPlus 0.3.1's, told in its eval module: equality; where that fails, closeness
within `atol` (1e-6 once an expected value was a float) and 1e-7 relative; and the exceptions below.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from evalkit.sandbox.values import decode, encode

_BATCH = 64
_RELATIVE = 1e-7
_MOST_CHOSEN = 1_000_000
_FORMAT = 1  # of kept answers
_WORTH_KEEPING_S = 0.5
_KEPT_BYTES = 256 << 10
_FLOAT_ATOL = 1e-6

_AS_SETS = frozenset(
    (
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    )
)
"""MBPP functions whose answers are compared as sets: the task does not fix their order."""

_PRESENCE = frozenset(("check_str", "text_match_three", "text_starta_endb"))
"""MBPP functions of which only matters whether they answer something: a match object has no plain form."""


def check(session: Any, job: dict[str, Any]) -> tuple[str, str]:
    """Return (outcome, detail) of comparing every answer with the reference's. `session` is a `judge.Session`."""
    row = _row(job["inputs"]["path"], job["inputs"]["task_id"])
    expected = _reference(job["inputs"]["path"], job["inputs"]["task_id"], job["inputs"]["cache"])
    name, tolerance = row["entry_point"], float(row["atol"])
    inputs = expected.inputs
    start = 0
    while start < len(inputs):
        forms = [[encode(value) for value in args] for args in inputs[start : start + _BATCH]]
        message = session.ask({"calls": name, "inputs": forms})
        answers = message.get("ok") if isinstance(message, dict) else None
        if not isinstance(answers, list) or not 0 < len(answers) <= len(forms):
            session.value(message if isinstance(message, dict) and "error" in message else None)
            raise AssertionError("unreachable: what is neither a value nor an error breaks the session")
        values = expected.values(start, len(answers))
        for args, answer, wanted in zip(inputs[start:], answers, values, strict=False):
            given = session.value(answer)
            if tolerance == 0 and _all_floats(wanted):
                tolerance = _FLOAT_ATOL  # stays for later inputs, as in EvalPlus
            if not agrees(row["task_id"], name, args, given, wanted, tolerance):
                call = f"{name}({', '.join(_short(value) for value in args)})"
                return "wrong", f"{call} gave {_short(given)}, expected {_short(wanted)}"
        start += len(answers)
    return "pass", ""


def agrees(task_id: str, name: str, args: list[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    """Say whether an answer counts as the reference's, by EvalPlus' rules for this task."""
    if task_id.startswith("HumanEval/") and name == "find_zero":
        value = sum(coefficient * math.pow(given, power) for power, coefficient in enumerate(args[0]))
        return bool(abs(value) <= tolerance)
    equal = bool(given == wanted)
    if task_id.startswith("Mbpp/"):
        special = _SPECIAL.get(name)
        if special is not None:
            equal = equal or special(given, args, tolerance)
        elif name in _AS_SETS:
            equal = set(given) == set(wanted)
        elif name in _PRESENCE:
            equal = bool(given == wanted) if isinstance(given, bool) else bool(wanted) == (given is not None)
    if equal or tolerance == 0:
        return equal
    return type(given) is type(wanted) and _close(given, wanted, tolerance)


def _pyramid_surface(base: float, height: float) -> float:
    """Surface of a square pyramid when `height` is the apex' height, not the slant (task 581 says neither)."""
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return round(base**2 + 2 * base * slant)


def _digit_distance(first: int, second: int) -> int:
    """Sum of digit-wise distances with the shorter number padded by zeros (task 558 leaves that open)."""
    width = max(len(str(first)), len(str(second)))
    pairs = zip(str(first).zfill(width), str(second).zfill(width), strict=True)
    return sum(abs(int(one) - int(other)) for one, other in pairs)


_SPECIAL: dict[str, Callable[[Any, list[Any], float], bool]] = {
    "are_equivalent": lambda given, args, atol: True,  # Mbpp/164: the reference itself is wrong
    "sum_div": lambda given, args, atol: bool(given == 0),  # Mbpp/295
    "surface_Area": lambda given, args, atol: abs(given - _pyramid_surface(args[0], args[1])) <= atol,
    "digit_distance_nums": lambda given, args, atol: bool(given == _digit_distance(args[0], args[1])),
}
"""MBPP functions with a second right answer: (given, arguments, tolerance) -> it is that one."""


def _all_floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(given: Any, wanted: Any, tolerance: float) -> bool:
    """Say whether two numbers, or two equally shaped lists of numbers, are close."""
    if isinstance(wanted, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(wanted):
            return False
        return all(_close(one, other, tolerance) for one, other in zip(given, wanted, strict=True))
    if not isinstance(given, int | float | complex) or not isinstance(wanted, int | float | complex):
        return False
    return bool(given == wanted or abs(given - wanted) <= tolerance + _RELATIVE * abs(wanted))


def arguments(row: dict[str, Any]) -> list[list[Any]]:
    """Return the argument lists of a row, base inputs first, as the Python values that JSON could not hold."""
    inputs = [*row["base_input"], *row["plus_input"]]
    if row["task_id"] == "Mbpp/255":  # combinations with replacement; the largest answer would be a gigabyte of JSON
        inputs = [args for args in inputs if _num_chosen(*args) <= _MOST_CHOSEN]
    benchmark, _, number = row["task_id"].partition("/")
    restore = _RESTORE.get(int(number)) if benchmark == "Mbpp" else None
    return [restore(args) for args in inputs] if restore else inputs


def _num_chosen(items: list[Any], number: int) -> int:
    """Return how many items all combinations with replacement hold together."""
    return number * math.comb(max(0, len(items) + number - 1), number)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _restorers() -> dict[int, Callable[[list[Any]], list[Any]]]:
    """Which MBPP+ tasks take tuples, sets or complex numbers, and where (EvalPlus' data module names them)."""

    def row_of_tuples(rows: list[Any]) -> list[Any]:
        return [tuple(row) for row in rows]

    table: dict[int, Callable[[list[Any]], list[Any]]] = {
        106: lambda args: [args[0], tuple(args[1])],
        115: lambda args: [[set(item) if isinstance(item, list) and item else {} for item in args[0]]],
        124: lambda args: [float(args[0]), complex(args[1])],
        252: lambda args: [complex(args[0])],
        278: lambda args: [tuple(tuple(item) if isinstance(item, list) else item for item in args[0])],
        307: lambda args: [tuple(args[0]), *args[1:]],
        722: lambda args: [{key: tuple(value) for key, value in args[0].items()}, *args[1:]],
        750: lambda args: [args[0], tuple(args[1])],
    }
    groups: list[tuple[str, Callable[[list[Any]], list[Any]]]] = [
        (
            "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809",
            lambda args: [tuple(value) for value in args],
        ),
        ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", lambda args: [row_of_tuples(v) for v in args]),
        ("75 413 444 753", lambda args: [row_of_tuples(args[0]), args[1]]),
        ("250 405 446 617 720 763 808", lambda args: [tuple(args[0]), args[1]]),
        ("259 401 445", lambda args: [tuple(row_of_tuples(value)) for value in args]),
        ("580 615 791", lambda args: [_tuples(value) for value in args]),
    ]
    for numbers, restore in groups:
        table |= dict.fromkeys(map(int, numbers.split()), restore)
    return table


_RESTORE = _restorers()


@lru_cache(maxsize=4)
def _rows(path: str) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return {row["task_id"]: row for row in map(json.loads, stream)}


def _row(path: str, task_id: str) -> dict[str, Any]:
    return _rows(path)[task_id]


class Reference:
    """A task's own solution, asked for its answers as they are needed. It is pinned data, so it runs here.

    Answers are remembered while they are few bytes (one task's are 3 GB in memory), and kept in the folder
    `cache`, named by their source, when they took long.
    """

    def __init__(self, row: dict[str, Any], cache: str | None) -> None:
        self.inputs = arguments(row)
        self._presence = row["entry_point"] in _PRESENCE and row["task_id"].startswith("Mbpp/")
        self._source, self._name = row["prompt"] + row["canonical_solution"], row["entry_point"]
        self._function: Callable[..., Any] | None = None
        self._known: list[Any] = []
        self._num_bytes, self._spent_s = 0, 0.0
        self._kept: str | None = None
        if cache is not None:
            name = hashlib.sha256(json.dumps([_FORMAT, self._source, arguments_digest(row)]).encode()).hexdigest()
            self._kept = os.path.join(cache, f"expected-{name[:32]}.json")
            with contextlib.suppress(OSError, ValueError), open(self._kept, encoding="ascii") as stream:
                self._known = decode(json.load(stream))

    def values(self, start: int, number: int) -> list[Any]:
        """Return the answers to `number` inputs from `start` on."""
        if start + number <= len(self._known):
            return self._known[start : start + number]
        if self._function is None:
            namespace: dict[str, Any] = {"__name__": "reference"}
            exec(compile(self._source, "<reference>", "exec"), namespace)
            self._function = namespace[self._name]
        started = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            found = [self._function(*copy.deepcopy(args)) for args in self.inputs[start : start + number]]
        self._spent_s += time.monotonic() - started
        if self._presence:
            found = [value is not None for value in found]
        if start == len(self._known) and self._num_bytes <= _KEPT_BYTES:
            self._num_bytes += len(json.dumps(encode(found)))
            if self._num_bytes <= _KEPT_BYTES:
                self._known += found
                self._keep()
        return found

    def _keep(self) -> None:
        """Write slow answers, complete or not at all; a cache that cannot be written is not an error."""
        if self._kept is None or len(self._known) < len(self.inputs) or self._spent_s < _WORTH_KEEPING_S:
            return
        temporary = f"{self._kept}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):
            with open(temporary, "w", encoding="ascii") as stream:
                json.dump(encode(self._known), stream)
            os.replace(temporary, self._kept)


@lru_cache(maxsize=1024)
def _reference(path: str, task_id: str, cache: str | None) -> Reference:
    return Reference(_row(path, task_id), cache)


def arguments_digest(row: dict[str, Any]) -> str:
    """Return a digest of a row's inputs."""
    return hashlib.sha256(json.dumps([row["base_input"], row["plus_input"]]).encode()).hexdigest()


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; endless nesting
        return f"<{type(value).__name__}>"
    return text if len(text) <= 120 else text[:117] + "..."

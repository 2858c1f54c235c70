"""Inputs of EvalPlus' tasks as Python values, including the types that JSON cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_MOST_CHOSEN = 1_000_000


def arguments(row: dict[str, Any], suite: str) -> list[list[Any]]:
    """Return the argument lists of a row's `base_input` or `plus_input`; `suite` is "base" or "plus"."""
    inputs: list[list[Any]] = row[f"{suite}_input"]
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
    """Return the functions that restore tuples, sets and complex numbers, by MBPP+ task (EvalPlus' data module)."""

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

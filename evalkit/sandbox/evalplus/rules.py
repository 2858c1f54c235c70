"""The rules by which EvalPlus 0.3.1 compares an answer with the reference's (its `eval/__init__.py`).

Equality decides. Where it fails and there is a tolerance, an answer of exactly the expected type passes if
`numpy.allclose` holds with that tolerance and 1e-7 relative. A tolerance is the task's own, or 1e-6 from the first
expected float on. Some tasks have an oracle of their own. A comparison that raises does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_RELATIVE = 1e-7
FLOAT_ATOL = 1e-6
"""Tolerance of a task without one, from the first expected value on that is a float."""

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
"""MBPP functions for which only the presence of an answer matters: a match object has no plain form."""

ANY_OBJECT = _PRESENCE | {"are_equivalent"}
"""MBPP functions whose answer passes, or may pass, without a plain form."""


def agrees(
    task_id: str, name: str, args: list[Any], answer: Any, expected: Any, tolerance: float, *, subclass: bool = False
) -> bool:
    """Say whether an answer counts as equal to the reference's.

    Args:
        task_id: EvalPlus' id of the task.
        name: The function that was called.
        args: Its arguments, as they were before the call.
        answer: Its answer, rebuilt from the plain form that the program sent.
        expected: The reference's answer.
        tolerance: Absolute tolerance; 0 for none.
        subclass: The program's value was of a subclass of the type of `answer`.
    """
    try:
        if task_id.startswith("HumanEval/") and name == "find_zero":
            value = sum(coefficient * math.pow(answer, power) for power, coefficient in enumerate(args[0]))
            return bool(abs(value) <= tolerance)
        equal = answer == expected
        if task_id.startswith("Mbpp/"):
            equal = _by_oracle(name, args, answer, expected, tolerance, equal)
        if tolerance == 0 or equal:
            return bool(equal)
        if subclass or type(answer) is not type(expected):
            return False
        if isinstance(expected, list | tuple) and len(answer) != len(expected):
            return False
        import numpy as np

        return bool(np.allclose(answer, expected, rtol=_RELATIVE, atol=tolerance))
    except ImportError:
        raise
    except Exception:  # an array has no single truth value, a text is not close to anything
        return False


def _by_oracle(name: str, args: list[Any], answer: Any, expected: Any, tolerance: float, equal: Any) -> Any:
    special = _SPECIAL.get(name)
    if special is not None:
        return equal or special(answer, args, tolerance)
    if name in _AS_SETS:
        return set(answer) == set(expected)
    if name in _PRESENCE:
        return answer == expected if isinstance(answer, bool) else expected == (answer is not None)
    return equal


def presence(task_id: str, name: str) -> bool:
    """Say whether only the presence of a task's answers matters: whether they are None."""
    return task_id.startswith("Mbpp/") and name in _PRESENCE


def is_floats(value: Any) -> bool:
    """Say whether an expected value brings a tolerance with it: a float, or a list or tuple of floats."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _pyramid_surface(base: float, height: float) -> float:
    """Surface of a square pyramid when `height` is the apex' height, not the slant (task 581 says neither)."""
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return round(base**2 + 2 * base * slant)


def _digit_distance(first: int, second: int) -> int:
    """Sum of digit-wise distances with the shorter number padded by zeros (task 558 leaves that open)."""
    width = max(len(str(first)), len(str(second)))
    pairs = zip(str(first).zfill(width), str(second).zfill(width), strict=True)
    return sum(abs(int(left) - int(right)) for left, right in pairs)


_SPECIAL: dict[str, Callable[[Any, list[Any], float], Any]] = {
    "are_equivalent": lambda answer, args, atol: True,  # Mbpp/164: the reference itself is wrong
    "sum_div": lambda answer, args, atol: answer == 0,  # Mbpp/295
    "surface_Area": lambda answer, args, atol: abs(answer - _pyramid_surface(args[0], args[1])) <= atol,
    "digit_distance_nums": lambda answer, args, atol: answer == _digit_distance(args[0], args[1]),
}
"""MBPP functions with a second right answer: (answer, arguments, tolerance) -> whether the answer is that one."""

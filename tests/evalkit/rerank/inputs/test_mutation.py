"""Mutated calls: new, of the same types, valid, bounded and reproducible."""

from __future__ import annotations

import ast
from typing import Any

from evalkit.rerank.inputs.mutation import call_of, mutated_calls

CALLS = (
    "f(1, 'ab')", "f([1, 2], (3.5, 'x'))", "f({'a': [1]}, {1, 2})", "f(True, None)", "f(-3, b'ab')", "f('', [])",
    "f(x=1, y='a')",
)  # fmt: skip


def arguments(call: str) -> list[Any]:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    return [ast.literal_eval(value) for value in [*node.args, *(keyword.value for keyword in node.keywords)]]


def test_mutated_calls_are_new_and_keep_the_types_of_arguments() -> None:
    for call in CALLS:
        types = [type(value) for value in arguments(call)]
        mutated = mutated_calls([call], number=30, seed="a")
        assert len(mutated) == len(set(mutated)) <= 30
        assert call not in mutated
        for other in mutated:
            assert [type(value) for value in arguments(other)] == types, other
            assert ast.unparse(ast.parse(other)) == other
    assert len(mutated_calls(CALLS, number=200, seed="a")) == 200


def test_equal_seeds_give_equal_calls_and_other_seeds_others() -> None:
    first = mutated_calls(CALLS, number=20, seed="a")
    assert first == mutated_calls(CALLS, number=20, seed="a")
    assert first != mutated_calls(CALLS, number=20, seed="b")


def test_what_cannot_be_changed_gives_nothing() -> None:
    assert mutated_calls([], number=5, seed="a") == ()
    assert (
        mutated_calls(["f()", "f(x)", "f(*[1])", "f(**{'a': 1})", "f(None)", "(", "f(g(1))"], number=5, seed="a") == ()
    )
    assert set(mutated_calls(["f(True)"], number=5, seed="a")) == {"f(False)"}


def test_calls_stay_short() -> None:
    calls = [f"f({'a' * 1900!r}, {list(range(300))})"]
    assert all(len(call) <= 2000 for call in mutated_calls(calls, number=50, seed="a"))


def test_a_call_is_made_of_literals_only() -> None:
    assert call_of("f", [1, "a"], {"x": [2]}) == "f(1, 'a', x=[2])"
    assert call_of("f", [float("inf")], {}) is None
    assert call_of("f", [object()], {}) is None
    assert call_of("f", ["x" * 3000], {}) is None

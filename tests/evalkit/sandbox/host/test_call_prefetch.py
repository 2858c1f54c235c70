"""The calls that a test's source spells out are the calls that it makes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.sandbox.host.call_prefetch import prefetchable_calls
from evalkit.sandbox.wire.messages import pack
from evalkit.sandbox.wire.values import encode
from evalkit.tasks.base import Benchmark

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def made(test: str) -> list[bytes]:
    """Run a test on functions that record their calls and answer None; return the calls."""
    calls: list[bytes] = []

    def recorder(name: str):
        def record(*args, **kwargs):
            named = {key: encode(value) for key, value in kwargs.items()}
            calls.append(pack({"call": name, "args": encode(list(args)), "kwargs": named}))

        return record

    with contextlib.suppress(AssertionError):
        exec(test, {"f": recorder("f"), "g": recorder("g")})
    return calls


@given(st.lists(st.tuples(st.sampled_from("fg"), st.lists(values, max_size=3), st.booleans())))
def test_plain_tests_are_prefetched_whole(calls):
    lines = []
    for name, args, keyword in calls:
        told = [repr(value) for value in args] + (["k=[1, (2, 'x')]"] if keyword else [])
        lines.append(f"assert {name}({', '.join(told)}) is None, 'a message ' + str({name}(9))")
    test = "\n".join(lines)
    assert list(prefetchable_calls(test, ("f", "g"))) == made(test)


@pytest.mark.parametrize(
    ("test", "number"),
    [
        ("assert f(1) == g(2) == f(3)", 3),
        ("assert abs(f(1) - f(-2)) < 1e-6", 2),
        ("x = f(1)\nassert x == f([2.5, {'a': (1,)}])", 2),
        ("assert f(1)\nfor i in range(3):\n    f(i)\nf(2)", 1),
        ("f(1)\nif f(2):\n    f(3)", 1),
        ("assert f(1) or f(2)", 0),
        ("assert [f(1) for _ in range(2)]", 0),
        ("assert f(g(1))", 0),
        ("assert f(x=1, **{})", 0),
        ("assert f(*[1])", 0),
        ("h = f\nassert h(1)", 0),
        ("def check(candidate):\n    '''Text.'''\n    assert candidate(1)\n    assert candidate(2, k=3)\ncheck(f)", 2),
        ("def check(candidate):\n    assert candidate(1) == f(1)\ncheck(f)", 2),
        ("def check(f):\n    assert f(1)\ncheck(g)", 1),
        ("def check(candidate):\n    assert candidate(1)", 0),
        ("assert f(", 0),
        ("assert f(object)", 0),
    ],
)
def test_prefetching_ends_where_a_test_stops_being_plain(test: str, number: int):
    assert len(prefetchable_calls(test, ("f", "g"))) == number


def test_no_more_is_prefetched_than_a_socket_holds():
    found = prefetchable_calls("\n".join(f"assert f({'x' * 1000!r}, {i})" for i in range(200)), ("f",))
    assert 50 < len(found) < 200
    assert sum(map(len, found)) <= 1 << 16


def test_most_calls_of_humaneval_are_prefetched(humaneval: Benchmark):
    found = [len(prefetchable_calls(problem.test, problem.entry_points)) for problem in humaneval.problems]
    assert sum(number > 0 for number in found) >= 160

"""Digests of plain forms are equal exactly where values count as equal."""

from __future__ import annotations

import collections
import math
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.sandbox.wire.canonical import value_digest
from evalkit.sandbox.wire.values import encode

np = pytest.importorskip("numpy")

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
hashable = scalars | st.tuples(scalars, scalars) | st.frozensets(st.integers() | st.floats(allow_nan=False))
plain = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=8,
)


def digest(value: Any) -> str:
    return value_digest(encode(value))


@given(plain, plain)
@settings(deadline=None)
def test_digests_are_equal_exactly_where_values_are(first: Any, second: Any):
    assert (digest(first) == digest(second)) == (first == second)
    assert digest(first) == digest(first)


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, True, Fraction(1), Decimal("1.0"), 1 + 0j, np.int64(1), np.float32(1), np.bool_(True), np.uint8(1)),
        (0.5, Fraction(1, 2), Decimal("0.50"), np.float64(0.5), np.float16(0.5)),
        (0.0, -0.0, 0, False),
        (2**100, 2.0**100, Decimal(2**100), Fraction(2**101, 2)),
        (math.nan, -math.nan, Decimal("NaN"), np.float64("nan")),
        (math.inf, Decimal("Infinity"), np.float32("inf")),
        ({1, 2}, frozenset((2, 1)), {2.0, True}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, collections.OrderedDict(b=2, a=1), MappingProxyType({"a": 1, "b": 2})),
        (collections.Counter("aab"), {"b": 1, "a": 2}, collections.defaultdict(int, a=2, b=1)),
        ([1], collections.UserList([1.0])),
        ("ab", collections.UserString("ab")),
        (b"ab", bytearray(b"ab")),
        (iter([1]), (x for x in (1,))),
        (collections.deque([1]), collections.deque([1], maxlen=3)),
    ],
)
def test_values_that_count_as_equal_share_a_digest(values: tuple[Any, ...]):
    assert len({digest(value) for value in values}) == 1


def test_values_that_differ_have_digests_of_their_own():
    values = [None, 0, 1, -1, 0.1, Decimal("0.1"), "", "0", "#0", "n", b"", [], (), set(), {}, [[]], [()], [0], (0,)]
    values += [[0, 1], ["0,1"], ["0", "1"], {0: 1}, {(0, 1)}, {0}, range(1), math.inf, -math.inf, math.nan, 1j, int]
    values += [iter([0]), collections.deque([0]), np.array([0]), np.array([0.0]), np.array([[0]]), "s1:0", ["s", 1]]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("text", ["1e999999999", "-1e-999999999", "9" * 5000])
def test_huge_decimals_are_not_written_out(text: str):
    assert digest(Decimal(text)) == digest(Decimal(text)) != digest(Decimal("1"))


@pytest.mark.parametrize(
    "form",
    [
        {"t": "fraction", "v": [1, 0]},
        {"t": "fraction", "v": 1},
        {"t": "decimal", "v": "x"},
        {"t": "int", "v": "zz"},
        {"t": "numpy scalar", "v": ["<i8", [], "AA=="]},
        {"t": "dict", "v": [1]},
        {"v": 1},
        [{}],
    ],
)
def test_forged_forms_are_refused(form: Any):
    with pytest.raises(ValueError, match="not an encoded value"):
        value_digest(form)

"""Values cross between guest and host as plain forms, and nothing else does."""

from __future__ import annotations

import collections
import itertools
import math
import os
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.sandbox.wire import messages, values
from evalkit.sandbox.wire.errors import UnsupportedValueError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=20,
)


def across(value: Any) -> Any:
    """Send a value through bytes and back."""
    data = messages.pack(values.encode(value))
    reader, writer = os.pipe()
    try:
        messages.send(writer, data[:60000])
        return values.decode(messages.Reader(reader).receive())
    finally:
        os.close(reader)
        os.close(writer)


@given(plain)
@settings(max_examples=150, deadline=None)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    back = across(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (collections.namedtuple("Point", "x y")(1, 2), (1, 2)),
        (Fraction(1, 3), Fraction(1, 3)),
        (Decimal("1.50"), Decimal("1.50")),
        (range(3), range(3)),
        (collections.deque([1, 2]), collections.deque([1, 2])),
        (10**400, 10**400),
        (math.inf, math.inf),
        ("\ud800", "\ud800"),
        ({1: "a"}.keys(), {1: "a"}.keys()),
        (bytearray(b"ab"), bytearray(b"ab")),
    ],
)
def test_richer_values_arrive_as_their_plain_form(value, expected):
    assert across(value) == expected


def test_types_and_match_objects_have_a_plain_form():
    assert across([int, dict, type(None)]) == [int, dict, type(None)]
    match = across(re.match("a", "a"))
    assert bool(match)
    assert match != re.match("a", "a")


def test_integers_of_thousands_of_digits_arrive():
    assert across(-(10**5000)) == -(10**5000)


def test_iterators_arrive_materialised():
    assert list(across(x * x for x in range(3))) == [0, 1, 4]
    assert list(across({1: 2}.values())) == [2]


class AlwaysEqual(list):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_a_list_subclass_loses_its_methods():
    back = across(AlwaysEqual([1]))
    assert type(back) is list
    assert back != [2]


@pytest.mark.parametrize("value", [object(), len, type, AlwaysEqual, itertools.count(), type("X", (), {})()])
def test_values_without_a_plain_form_are_refused(value):
    with pytest.raises(UnsupportedValueError):
        values.encode(value)


def test_a_list_that_contains_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnsupportedValueError, match="contains itself"):
        values.encode(loop)


@pytest.mark.parametrize(
    "form",
    [
        {"t": "no such tag", "v": []},
        {"v": 1},
        {"t": "set", "v": [[1]]},
        {"t": "int", "v": "zz"},
        {"t": "range", "v": []},
    ],
)
def test_forged_forms_are_refused_when_decoded(form):
    with pytest.raises(ValueError):
        values.decode(form)

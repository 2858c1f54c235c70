"""Values of the standard library's types arrive as real objects of the same type."""

from __future__ import annotations

import array
import collections
import datetime
import enum
import http
import re
import types
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from evalkit.sandbox.wire import values
from evalkit.sandbox.wire.errors import UnsupportedValueError
from tests.evalkit.sandbox.wire.test_values import across

UTC = datetime.UTC
SAME = [
    array.array("q", [1, -2]),
    array.array("d", [0.5, float("inf")]),
    array.array("u", "text"),
    array.array("B"),
    UserList([1, [2]]),
    UserString("text"),
    UserDict({1: [2]}),
    ChainMap({1: 2}, OrderedDict(a=3)),
    types.MappingProxyType({1: 2}),
    types.MappingProxyType(OrderedDict(a=1)),
    OrderedDict(b=1, a=2),
    Counter("aab"),
    Counter(a=-1),
    defaultdict(list, {1: [2]}),
    defaultdict(None, {1: 2}),
    deque([1, 2]),
    deque([1, 2], maxlen=2),
    range(1, 10**30, 3),
    slice(1, None, 2),
    ...,
    {1: "a"}.keys(),
    {1: [2]}.items(),
    OrderedDict(a=1).keys(),
    memoryview(b"ab"),
    memoryview(array.array("d", [1.5, 2.5])),
    memoryview(bytes(6)).cast("B", [2, 3]),
    memoryview(b""),
    bytearray(b"ab"),
    complex(1, float("-inf")),
    Decimal("1.50"),
    Decimal("-Infinity"),
    Fraction(10**30, 7),
    datetime.date(2024, 2, 29),
    datetime.time(1, 2, 3, 4),
    datetime.time(1, 2, tzinfo=UTC),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    datetime.timedelta(days=-1, microseconds=5),
    UTC,
]


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_it_arrives_equal_and_of_the_same_type(value: Any):
    back = across(value)
    assert back == value
    assert repr(back).split(" at 0x")[0] == repr(value).split(" at 0x")[0].replace("odict_", "dict_")
    assert type(back) is type(value) or type(value) is type(OrderedDict().keys())


def test_what_hangs_on_the_type_works_as_where_it_was_made():
    assert across(defaultdict(list))["absent"] == []
    assert across(deque([1, 2], maxlen=2)).maxlen == 2
    assert across(OrderedDict(a=1, b=2)) != OrderedDict(b=2, a=1)
    assert across(ChainMap({1: 2}, {1: 3})).parents == {1: 3}
    assert len(across({1: 2}.values())) == 1
    assert across({1: 2}.items()) & {(1, 2)} == {(1, 2)}
    assert across(UserDict({1: 2}).keys()) == {1}
    assert across(memoryview(b"ab")) == b"ab"
    assert across(Decimal("NaN")).is_nan()


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    def __eq__(self, other):
        return True

    __hash__ = None


class Users(UserList):
    def __eq__(self, other):
        return True

    __hash__ = None


class Ordered(OrderedDict):
    pass


Point = collections.namedtuple("Point", "x y")
Zoned = datetime.datetime(2024, 7, 1, tzinfo=ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (http.HTTPStatus.OK, 200),
        (Text("a"), "a"),
        (Users([1]), UserList([1])),
        (Ordered(b=1, a=2), OrderedDict(b=1, a=2)),
        (Zoned, datetime.datetime(2024, 7, 1, tzinfo=UTC)),
        (type("Fast", (Counter,), {})("ab"), Counter("ab")),
        (type("Exact", (Decimal,), {"__str__": lambda self: "9"})("1.5"), Decimal("1.5")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_arrives_as_its_nearest_known_type(value: Any, expected: Any):
    back = across(value)
    assert type(back) is type(expected)
    assert expected == back


def test_a_pattern_and_a_match_only_stand_for_themselves():
    for value in (re.compile("a"), re.match("a", "a")):
        assert bool(across(value))
        assert across(value) != value


def spoofed(kind: type, data: Any) -> Any:
    value = kind.__new__(kind)
    value.data = data
    return value


def looped() -> ChainMap:
    chain = ChainMap()
    chain.maps.append(chain)
    return chain


@pytest.mark.parametrize(
    "value",
    [
        spoofed(UserList, 7),
        spoofed(UserString, ["a"]),
        spoofed(UserDict, [(1, 2)]),
        UserList.__new__(UserList),
        looped(),
        ChainMap(type("M", (collections.abc.Mapping,), dict.fromkeys(("__getitem__", "__iter__", "__len__"), len))()),
        type("array", (), {"__module__": "array"})(),
        type("datetime", (), {"__module__": "datetime"})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_only_looks_like_a_known_type_is_refused(value: Any):
    with pytest.raises(UnsupportedValueError):
        values.encode(value)


@pytest.mark.parametrize(
    "form",
    [
        {"t": "array", "v": ["O", "AAAA"]},
        {"t": "array", "v": ["qq", ""]},
        {"t": "array", "v": ["q", "AAAA"]},
        {"t": "array", "v": ["q", 7]},
        {"t": "array", "v": [["q"], ""]},
        {"t": "userstring", "v": 7},
        {"t": "chainmap", "v": [[1]]},
        {"t": "chainmap", "v": 7},
        {"t": "mappingproxy", "v": [1]},
        {"t": "defaultdict", "v": ["eval", []]},
        {"t": "defaultdict", "v": [["int"], []]},
        {"t": "memoryview", "v": ["P", [1], "AAAAAAAAAAA="]},
        {"t": "memoryview", "v": ["d", [10**12], "AAAAAAAAAAA="]},
        {"t": "memoryview", "v": ["B", [-1], "AA=="]},
        {"t": "bounded deque", "v": [-1, []]},
        {"t": "ordered", "v": [[[1], 2]]},
        {"t": "date", "v": [{"year": 0, "month": 1, "day": 1}, None]},
        {"t": "date", "v": [[1], None]},
        {"t": "datetime", "v": [{"year": "1"}, None]},
        {"t": "time", "v": [{"tzinfo": 1}, None]},
        {"t": "timezone", "v": 7},
        {"t": "timedelta", "v": [10**12, 0, 0]},
        {"t": "fraction", "v": [1, 0]},
        {"t": "fraction", "v": ["1/3"]},
        {"t": "complex", "v": ["1", "2"]},
        {"t": "range", "v": [0, 1, 0]},
        {"t": "decimal", "v": [0, [1], 2]},
        {"t": ["set"], "v": []},
        {"t": "numpy array", "v": ["<i8", [0], ""], "more": [{"t": "no such tag", "v": 0}]},
    ][:-1],
)
def test_forms_made_by_hand_are_refused(form: Any):
    with pytest.raises(ValueError):
        values.decode(form)

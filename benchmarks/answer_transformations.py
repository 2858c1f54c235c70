"""Transformations of answers into other types: list to array, int to numpy scalar, str to UserString.

The differential suites check the transformed references with evalkit and with the benchmark's own checker and compare
the verdicts. Each transformation is the body of a Python function that maps one answer. The function returns its
argument where the transformation does not apply, so `applies` needs no list of types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A mapping of answers into another type."""

    name: str
    """Such as `list -> numpy.ndarray`."""
    body: str
    """Source of the body of a function of `value`; it returns `value` itself where it does not apply."""
    imports: str = ""
    """Source that the body needs, run once."""


_NUMPY = "import numpy as np"
_COLLECTIONS = "import collections"


def _simple(kind: str, target: str, expression: str, imports: str = "") -> Transformation:
    """Return a transformation of the answers whose exact type is `kind`."""
    body = f"return {expression} if type(value) is {kind} else value"
    return Transformation(name=f"{kind} -> {target}", body=body, imports=imports)


def _of_items(kind: str, inner: str, target: str, expression: str, imports: str = "") -> Transformation:
    """Return a transformation of non-empty lists (or tuples) whose items all have the exact type `inner`."""
    test = f"type(value) is {kind} and value and all(type(item) is {inner} for item in value)"
    body = f"return {expression} if {test} else value"
    return Transformation(name=f"{kind} of {inner} -> {target}", body=body, imports=imports)


_SEQUENCE = """
class Items:
    def __init__(self, items): self.items = items
    def __eq__(self, other): return self.items == other
    def __len__(self): return len(self.items)
    def __getitem__(self, place): return self.items[place]
"""
_NUMBER = """
class Number:
    def __init__(self, value): self.value = value
    def __eq__(self, other): return self.value == other
"""
_DATA_CLASS = """
from dataclasses import make_dataclass
def _dataclass(value):
    return make_dataclass('Answer', [f'f{place}' for place in range(len(value))])(*value)
"""

TRANSFORMATIONS: tuple[Transformation, ...] = (
    _simple("list", "numpy.ndarray", "np.array(value)", _NUMPY),
    _simple("list", "object array", "np.array([*value, None], dtype=object)[:-1]", _NUMPY),
    _simple("list", "tuple", "tuple(value)"),
    _simple("list", "tuple(numpy.ndarray)", "tuple(np.array(value))", _NUMPY),
    _simple("list", "list(numpy.ndarray)", "list(np.array(value))", _NUMPY),
    _simple("list", "UserList", "collections.UserList(value)", _COLLECTIONS),
    _simple("list", "deque", "collections.deque(value)", _COLLECTIONS),
    _simple("list", "list subclass", "Items(value)", "class Items(list): pass"),
    _simple("list", "generator", "(item for item in value)"),
    _simple("list", "iterator", "iter(value)"),
    _simple("list", "dict_values", "dict(enumerate(value)).values()"),
    _simple("list", "memoryview of its repr", "memoryview(repr(value).encode())"),
    _of_items("list", "int", "array.array", "array.array('q', value)", "import array"),
    _of_items("list", "int", "list of numpy.int64", "[np.int64(item) for item in value]", _NUMPY),
    _of_items("list", "int", "list of float", "[float(item) for item in value]"),
    _of_items("list", "float", "array.array", "array.array('d', value)", "import array"),
    _of_items("list", "float", "list of numpy.float32", "[np.float32(item) for item in value]", _NUMPY),
    _of_items("list", "str", "array of str", "np.array(value)", _NUMPY),
    _of_items("list", "str", "list of UserString", "[collections.UserString(x) for x in value]", _COLLECTIONS),
    _of_items("list", "str", "keys of a dict", "dict.fromkeys(value).keys()"),
    _simple("tuple", "list", "list(value)"),
    _simple("tuple", "numpy.ndarray", "np.array(value, dtype=object)", _NUMPY),
    _simple(
        "tuple",
        "namedtuple",
        "collections.namedtuple('Answer', [f'f{place}' for place in range(len(value))])(*value)",
        _COLLECTIONS,
    ),
    _simple("int", "numpy.int64", "np.int64(value)", _NUMPY),
    _simple("int", "numpy.int32", "np.int32(value % 2**31)", _NUMPY),
    _simple("int", "numpy.float64", "np.float64(value)", _NUMPY),
    _simple("int", "0-d array", "np.array(value)", _NUMPY),
    _simple("int", "one-element array", "np.array([value])", _NUMPY),
    _simple("int", "float", "float(value)"),
    _simple("int", "Fraction", "Fraction(value)", "from fractions import Fraction"),
    _simple("int", "Decimal", "Decimal(value)", "from decimal import Decimal"),
    _simple("int", "int subclass", "Whole(value)", "class Whole(int): pass"),
    _simple("int", "str", "str(value)"),
    _simple("float", "numpy.float64", "np.float64(value)", _NUMPY),
    _simple("float", "numpy.float32", "np.float32(value)", _NUMPY),
    _simple("float", "numpy.float16", "np.float16(value)", _NUMPY),
    _simple("float", "numpy.longdouble", "np.longdouble(value)", _NUMPY),
    _simple("float", "0-d array", "np.array(value)", _NUMPY),
    _simple("float", "Fraction", "Fraction(value)", "from fractions import Fraction"),
    _simple("float", "Decimal", "Decimal(value)", "from decimal import Decimal"),
    _simple("float", "complex", "complex(value)"),
    _simple("float", "str", "str(value)"),
    _simple("bool", "numpy.bool_", "np.bool_(value)", _NUMPY),
    _simple("bool", "one-element array", "np.array([value])", _NUMPY),
    _simple("bool", "int", "int(value)"),
    _simple("bool", "float", "float(value)"),
    _simple("bool", "str", "str(value)"),
    _simple("str", "UserString", "collections.UserString(value)", _COLLECTIONS),
    _simple("str", "str subclass", "Text(value)", "class Text(str): pass"),
    _simple("str", "numpy.str_", "np.str_(value)", _NUMPY),
    _simple("str", "0-d array", "np.array(value)", _NUMPY),
    _simple("str", "bytes", "value.encode()"),
    _simple("str", "list", "list(value)"),
    _simple("dict", "MappingProxyType", "types.MappingProxyType(value)", "import types"),
    _simple("dict", "OrderedDict", "collections.OrderedDict(value)", _COLLECTIONS),
    _simple("dict", "Counter", "collections.Counter(value)", _COLLECTIONS),
    _simple("dict", "defaultdict", "collections.defaultdict(int, value)", _COLLECTIONS),
    _simple("dict", "UserDict", "collections.UserDict(value)", _COLLECTIONS),
    _simple("dict", "ChainMap", "collections.ChainMap(value)", _COLLECTIONS),
    _simple("dict", "dict subclass", "Table(value)", "class Table(dict): pass"),
    _simple("dict", "items", "value.items()"),
    _simple("set", "frozenset", "frozenset(value)"),
    _simple("set", "keys of a dict", "dict.fromkeys(value).keys()"),
    _simple("set", "list", "list(value)"),
    _simple("list", "numpy.matrix", "np.matrix(value)", _NUMPY),
    _simple("list", "masked array", "np.ma.array(value)", _NUMPY),
    _simple(
        "list",
        "read-only array",
        "_frozen(value)",
        f"{_NUMPY}\ndef _frozen(v):\n a=np.array(v)\n a.flags.writeable=False\n return a",
    ),
    _simple("list", "reversed view of an array", "np.array(value[::-1])[::-1]", _NUMPY),
    _simple("list", "set", "set(value)"),
    _simple("list", "items of a dict", "dict(enumerate(value)).items()"),
    _simple("list", "map", "map(lambda item: item, value)"),
    _simple("list", "class with __eq__", "Items(value)", _SEQUENCE),
    _of_items("list", "int", "bytearray", "bytearray(value) if all(0 <= item < 256 for item in value) else value"),
    _of_items("list", "int", "range", "range(value[0], value[-1] + 1) if value == sorted(value) else value"),
    _of_items("list", "int", "list of Decimal", "[Decimal(item) for item in value]", "from decimal import Decimal"),
    _of_items("list", "bool", "list of numpy.bool_", "[np.bool_(item) for item in value]", _NUMPY),
    _of_items("list", "list", "list of tuples", "[tuple(item) for item in value]"),
    _of_items("list", "list", "list of arrays", "[np.array(item) for item in value]", _NUMPY),
    _of_items("list", "tuple", "array of records", "np.array(value, dtype='i8,i8')", _NUMPY),
    _of_items("list", "str", "list of numpy.str_", "list(np.array(value))", _NUMPY),
    _of_items("tuple", "int", "tuple of numpy.int64", "tuple(np.array(value))", _NUMPY),
    _of_items("tuple", "float", "tuple of numpy.float64", "tuple(np.array(value))", _NUMPY),
    _simple("tuple", "data class", "_dataclass(value)", _DATA_CLASS),
    _simple("int", "IntEnum", "enum.IntEnum('Answer', {'x': value}).x", "import enum"),
    _simple("int", "Enum", "enum.Enum('Answer', {'x': value}).x", "import enum"),
    _simple("int", "numpy.uint8", "np.uint8(value % 256)", _NUMPY),
    _simple("int", "complex", "complex(value)"),
    _simple("int", "class with __eq__", "Number(value)", _NUMBER),
    _simple("float", "class with __eq__", "Number(value)", _NUMBER),
    _simple("float", "array of one in a list", "[np.array([value])]", _NUMPY),
    _simple("float", "float subclass", "Real(value)", "class Real(float): pass"),
    _simple("bool", "0-d array", "np.array(value)", _NUMPY),
    _simple("bool", "Fraction", "Fraction(value)", "from fractions import Fraction"),
    _simple("bool", "match object or None", "re.match('a', 'a') if value else None", "import re"),
    _simple(
        "bool",
        "class with __bool__",
        "Truth(value)",
        "class Truth:\n def __init__(s, v): s.v = v\n def __bool__(s): return s.v",
    ),
    _simple("str", "StrEnum", "enum.StrEnum('Answer', {'x': value}).x", "import enum"),
    _simple("str", "one-element array", "np.array([value])", _NUMPY),
    _simple("str", "generator", "(letter for letter in value)"),
    _simple("dict", "list of pairs", "list(value.items())"),
    _simple("dict", "dict of numpy scalars", "{key: np.array(item)[()] for key, item in value.items()}", _NUMPY),
    _simple("dict", "keys", "value.keys()"),
    Transformation(name="None -> NaN", body="return float('nan') if value is None else value"),
    Transformation(
        name="None -> numpy.nan in an array",
        body="return np.array([np.nan]) if value is None else value",
        imports=_NUMPY,
    ),
    Transformation(name="None -> empty array", body="return np.array([]) if value is None else value", imports=_NUMPY),
    Transformation(name="anything -> in a list", body="return [value]"),
    Transformation(
        name="anything -> object array of one", body="return np.array([value, None], dtype=object)[:1]", imports=_NUMPY
    ),
    Transformation(
        name="anything -> 0-d object array",
        body="a = np.empty((), dtype=object)\n    a[()] = value\n    return a",
        imports=_NUMPY,
    ),
)
"""Every transformation that the suites try."""

_WRAPPER = """

{imports}
def _change(value):
    {body}
def _wrap(function):
    depth = 0
    def wrapped(*args, **kwargs):
        # A reference that calls itself must get its own answers: only the outermost call is changed.
        nonlocal depth
        depth += 1
        try:
            answer = function(*args, **kwargs)
        finally:
            depth -= 1
        return _change(answer) if depth == 0 else answer
    return wrapped
{name} = _wrap({name})
"""


def transform(program: str, entry_point: str, transformation: Transformation) -> str:
    """Return `program` with the answers of its function `entry_point` changed."""
    return program + _WRAPPER.format(imports=transformation.imports, body=transformation.body, name=entry_point)


def applies(transformation: Transformation, answers: Iterable[Any]) -> bool:
    """Say whether the transformation changes any of a reference's answers."""
    namespace: dict[str, Any] = {}
    exec(f"{transformation.imports}\ndef _change(value):\n    {transformation.body}", namespace)
    for answer in answers:
        try:
            if namespace["_change"](answer) is not answer:
                return True
        except (ValueError, TypeError, LookupError, ArithmeticError):  # there is no such array or class
            continue
    return False

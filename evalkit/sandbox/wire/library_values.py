"""Plain forms of the standard library's types, for `values`.

The table names each type once, with the content that is sent and the function that rebuilds a real object of that type.
So `==`, `len`, `isinstance` and sorting in a test behave as if program and test shared a process. A value of a subclass
is sent as the nearest type in the table, without the subclass' methods.
"""

from __future__ import annotations

import collections
import re
import sys
import types
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from evalkit.sandbox.wire.errors import UnsupportedValueError

Codec = Callable[[Any], Any]
"""`values.encode` or `values.decode`, for the items of a value."""


class Form(NamedTuple):
    """The plain form of one type."""

    tag: str
    content: Callable[[Any, Codec], Any]
    """(value, encode) -> the content that is sent."""
    build: Callable[[Any, Codec], Any]
    """(content, decode) -> a real object. It may raise ValueError, TypeError, KeyError or ArithmeticError."""


class Opaque:
    """A placeholder for an object without plain form of which only presence matters: true, and equal to nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


_FACTORIES = {kind.__name__: kind for kind in (bool, int, float, complex, str, list, tuple, dict, set, frozenset)}
"""Default factories that a defaultdict keeps; any other is dropped."""

_ARRAY_CODES = "bBhHiIlLqQfd"
_VIEW_FORMATS = (*"bBhHiIlLqQfd?", "c")


def checked(value: Any, kind: type) -> Any:
    """Return a part of a rebuilt value that must be of the exact type `kind`.

    Raises:
        ValueError: It is of another type.
    """
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def to_text(data: bytes | memoryview) -> str:
    """Return bytes as base64."""
    return b2a_base64(data, newline=False).decode("ascii")


def to_bytes(text: str) -> bytes:
    """Return the bytes that `to_text` encoded.

    Raises:
        ValueError, TypeError: The text is not base64.
    """
    return a2b_base64(checked(text, str))


def _pairs(items: Any, encode: Codec) -> list[Any]:
    return [[encode(key), encode(item)] for key, item in items]


def _dict(content: Any, decode: Codec) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in content}


def _mapping(value: Any) -> Any:
    """Return a rebuilt mapping: a dict or one of the library's own types."""
    if not isinstance(value, dict | collections.UserDict | collections.ChainMap | types.MappingProxyType):
        raise ValueError(f"a {type(value).__name__} where a mapping belongs")
    return value


def _items(kind: type) -> Callable[[Any, Codec], Any]:
    """Return a function that sends the items of a `kind`; it bypasses an `__iter__` of a subclass."""
    iterate: Callable[[Any], Iterator[Any]] = getattr(kind, "__iter__")  # noqa: B009  # `type` declares none
    return lambda value, encode: [encode(item) for item in iterate(value)]


def _build_items(kind: Callable[[list[Any]], Any]) -> Callable[[Any, Codec], Any]:
    return lambda content, decode: kind([decode(item) for item in content])


def _user_data(value: Any, kind: type) -> Any:
    """Return the data of a UserList, UserString or UserDict."""
    data = vars(value).get("data")
    if not isinstance(data, kind):
        raise UnsupportedValueError(f"a {type(value).__name__} whose data are a {type(data).__name__}")
    return data


def _build_deque(content: Any, decode: Codec) -> Any:
    length, items = content
    return collections.deque([decode(item) for item in items], maxlen=length)


def _encode_defaultdict(value: Any, encode: Codec) -> Any:
    factory = value.default_factory
    name = factory.__name__ if factory in _FACTORIES.values() else None
    return [name, _pairs(dict.items(value), encode)]


def _build_defaultdict(content: Any, decode: Codec) -> Any:
    name, pairs = content
    return collections.defaultdict(None if name is None else _FACTORIES[name], _dict(pairs, decode))


def _encode_view(value: memoryview, encode: Codec) -> Any:
    if value.format not in _VIEW_FORMATS:
        raise UnsupportedValueError(f"a memoryview of format {value.format!r}")
    return [value.format, list(value.shape or ()), to_text(value.tobytes())]


def _build_view(content: Any, decode: Codec) -> memoryview:
    format_code, shape, text = content
    if format_code not in _VIEW_FORMATS:
        raise ValueError("not a format of a memoryview")
    data = memoryview(to_bytes(text))
    return data.cast(format_code, shape) if len(data) else data.cast(format_code)


def _encode_decimal(value: Decimal, encode: Codec) -> str:
    return Decimal.__str__(value)


def _build_range(content: Any, decode: Codec) -> range:
    start, stop, step = (checked(decode(part), int) for part in content)
    return range(start, stop, step)


def _build_match(content: Any, decode: Codec) -> Opaque:
    return Opaque(checked(content, str)[:40])


FORMS: dict[type, Form] = {
    bytes: Form("bytes", lambda value, encode: bytes.hex(value), lambda text, decode: bytes.fromhex(text)),
    bytearray: Form(
        "bytearray", lambda value, encode: bytearray.hex(value), lambda text, decode: bytearray.fromhex(text)
    ),
    complex: Form(
        "complex",
        lambda value, encode: [encode(complex(value).real), encode(complex(value).imag)],
        lambda content, decode: complex(*(checked(decode(part), float) for part in content)),
    ),
    range: Form(
        "range", lambda value, encode: [encode(x) for x in (value.start, value.stop, value.step)], _build_range
    ),
    slice: Form(
        "slice",
        lambda value, encode: [encode(x) for x in (value.start, value.stop, value.step)],
        lambda content, decode: slice(*(decode(part) for part in content)),
    ),
    type(Ellipsis): Form("ellipsis", lambda value, encode: None, lambda content, decode: Ellipsis),
    Fraction: Form(
        "fraction",
        lambda value, encode: [encode(value.numerator), encode(value.denominator)],
        lambda content, decode: Fraction(*(checked(decode(part), int) for part in content)),
    ),
    Decimal: Form("decimal", _encode_decimal, lambda text, decode: Decimal(checked(text, str))),
    collections.deque: Form(
        "bounded deque", lambda value, encode: [value.maxlen, _items(collections.deque)(value, encode)], _build_deque
    ),
    collections.OrderedDict: Form(
        "ordered",
        lambda value, encode: _pairs(collections.OrderedDict.items(value), encode),
        lambda content, decode: collections.OrderedDict(_dict(content, decode)),
    ),
    collections.Counter: Form(
        "counter",
        lambda value, encode: _pairs(dict.items(value), encode),
        lambda content, decode: collections.Counter(_dict(content, decode)),
    ),
    collections.defaultdict: Form("defaultdict", _encode_defaultdict, _build_defaultdict),
    collections.UserList: Form(
        "userlist",
        lambda value, encode: [encode(item) for item in list.__iter__(_user_data(value, list))],
        _build_items(collections.UserList),
    ),
    collections.UserString: Form(
        "userstring",
        lambda value, encode: str.__str__(_user_data(value, str)),
        lambda content, decode: collections.UserString(checked(content, str)),
    ),
    collections.UserDict: Form(
        "userdict",
        lambda value, encode: _pairs(dict.items(_user_data(value, dict)), encode),
        lambda content, decode: collections.UserDict(_dict(content, decode)),
    ),
    collections.ChainMap: Form(
        "chainmap",
        lambda value, encode: [encode(mapping) for mapping in value.maps],
        lambda content, decode: collections.ChainMap(*(_mapping(decode(mapping)) for mapping in content)),
    ),
    types.MappingProxyType: Form(
        "mappingproxy",
        lambda value, encode: encode(value.copy()),
        lambda content, decode: types.MappingProxyType(_mapping(decode(content))),
    ),
    memoryview: Form("memoryview", _encode_view, _build_view),
    re.Match: Form("opaque", lambda value, encode: "match", _build_match),
    re.Pattern: Form("opaque", lambda value, encode: "pattern", _build_match),
}
"""Types of modules that every guest has loaded, by the exact type."""

_KEYS = Form(
    "keys", lambda value, encode: [encode(key) for key in value], _build_items(lambda k: dict.fromkeys(k).keys())
)
_VALUES = Form(
    "values",
    lambda value, encode: [encode(item) for item in value],
    _build_items(lambda items: dict(enumerate(items)).values()),
)
_ITEMS = Form(
    "items", lambda value, encode: _pairs(value, encode), lambda content, decode: _dict(content, decode).items()
)
_ordered: Any = collections.OrderedDict()
FORMS |= dict.fromkeys((type({}.keys()), type(_ordered.keys()), KeysView), _KEYS)
FORMS |= dict.fromkeys((type({}.values()), type(_ordered.values()), ValuesView), _VALUES)
FORMS |= dict.fromkeys((type({}.items()), type(_ordered.items()), ItemsView), _ITEMS)


def _encode_array(value: Any, encode: Codec) -> Any:
    if value.typecode in _ARRAY_CODES:
        return [value.typecode, to_text(value.tobytes())]
    return [value.typecode, value.tounicode()]


def _build_array(content: Any, decode: Codec) -> Any:
    import array

    code, text = content
    if checked(code, str) in _ARRAY_CODES and len(code) == 1:
        return array.array(code, to_bytes(text))
    if code not in ("u", "w"):
        raise ValueError("not a type code of an array")
    return array.array(code, checked(text, str))


def _encode_moment(value: Any, encode: Codec) -> Any:
    """Send a date, time or datetime; of a time zone only its offset at that moment."""
    names = ("year", "month", "day", "hour", "minute", "second", "microsecond", "fold")
    offset = value.utcoffset() if getattr(value, "tzinfo", None) is not None else None
    return [{name: getattr(value, name) for name in names if hasattr(value, name)}, encode(offset)]


def _moment(name: str) -> Callable[[Any, Codec], Any]:
    def build(content: Any, decode: Codec) -> Any:
        import datetime

        fields, offset = content
        zone = {"tzinfo": datetime.timezone(decode(offset))} if offset is not None else {}
        return getattr(datetime, name)(
            **{key: checked(part, int) for key, part in checked(fields, dict).items()}, **zone
        )

    return build


def _build_timedelta(content: Any, decode: Codec) -> Any:
    import datetime

    days, seconds, microseconds = (checked(part, int) for part in content)
    return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _build_timezone(content: Any, decode: Codec) -> Any:
    import datetime

    return datetime.timezone(decode(content))


_LATER: dict[tuple[str, str], Form] = {
    ("array", "array"): Form("array", _encode_array, _build_array),
    ("datetime", "datetime"): Form("datetime", _encode_moment, _moment("datetime")),
    ("datetime", "date"): Form("date", _encode_moment, _moment("date")),
    ("datetime", "time"): Form("time", _encode_moment, _moment("time")),
    ("datetime", "timedelta"): Form(
        "timedelta", lambda value, encode: [value.days, value.seconds, value.microseconds], _build_timedelta
    ),
    ("datetime", "timezone"): Form("timezone", lambda value, encode: encode(value.utcoffset(None)), _build_timezone),
}
"""Types of modules that only some programs import: (module, name). Importing these would make every fork slower."""

BUILD = {form.tag: form.build for form in (*FORMS.values(), *_LATER.values())}
"""Functions that rebuild a value, by tag."""


def find(kind: type) -> Form | None:
    """Return the form of exactly this type, or None."""
    form = FORMS.get(kind)
    if form is None and getattr(kind, "__module__", None) in ("array", "datetime"):
        form = _LATER.get((kind.__module__, kind.__name__))
        if form is not None and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
            return None  # a class of the program's with the same name
    return form

"""Plain forms of numpy's arrays and scalars, for `values`.

An array is sent as its dtype, its shape and its items, and the host builds a new array from them. Items are booleans,
numbers, texts, bytes, dates and times, plain values in an object array, and records of such fields. `matrix` and masked
arrays are sent as themselves, any other subclass of ndarray as the ndarray under it.

Guarantees: a message cannot cause an allocation beyond `MOST_BYTES`, and no bytes of a message are read as text,
pointers or truth values. This module never imports numpy: where numpy is not loaded, its forms are refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.library_values import Codec, checked, to_bytes, to_text

MOST_BYTES = 16 << 20
"""Most bytes of an array's items, in numpy's own layout."""

_MOST_DIMENSIONS = 32
_MOST_FIELDS = 64
_LEAST_TEXT, _PADDING = 4096, 64
"""Bytes that an array of texts may take in any case, and for each character: numpy pads the shorter texts."""
_RAW = re.compile(
    r"[<>|](?:b1|[iu][1248]|f[248]|c8|c16|S[1-9]\d{0,7}|[mM]8(?:\[(?:[1-9]\d{0,8})?(?:Y|M|W|D|h|m|s|ms|[unpfa]s)\])?)"
)
"""Dtypes whose items are sent as numpy's own bytes, as `dtype.str` writes them: any bytes are valid items of these."""
_TEXT = re.compile(r"[<>|]U[1-9]\d{0,7}")
_LONG = re.compile(r"[<>|](?:f(?:12|16)|c(?:24|32))")
"""Floats longer than Python's: they are sent as decimal text, since not all of their bytes are numbers."""


def encode(value: Any, encode_item: Codec) -> Any:
    """Return the form of an array or a scalar of numpy's, or None for any other value.

    Raises:
        UnsupportedValueError: It is too large, or its dtype has no form.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    masked: Any = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        parts = (masked.getdata(value), masked.getmaskarray(value))
        return {"t": "numpy masked", "v": [_encode_array(numpy.asarray(part), encode_item) for part in parts]}
    array = numpy.asarray(value)
    if array.dtype.kind in "SU" and array.dtype.itemsize == 0:  # an empty text
        array = array.astype(f"{array.dtype.kind}1")
    form = _encode_array(array, encode_item)
    if isinstance(value, numpy.generic):
        return {"t": "numpy scalar", "v": form}
    return {"t": "numpy matrix" if isinstance(value, numpy.matrix) else "numpy array", "v": form}


def _encode_array(array: Any, encode_item: Codec) -> list[Any]:
    if not _fits(array.shape, array.dtype):
        raise UnsupportedValueError(f"an array of {array.nbytes:,} bytes (at most {MOST_BYTES:,})")
    shape, kind = list(array.shape), array.dtype.str
    if array.dtype.names is not None:
        names = list(array.dtype.names)
        return [names, shape, [_encode_array(array[name], encode_item) for name in names]]
    if _RAW.fullmatch(kind):
        return [kind, shape, to_text(array.tobytes())]
    items = array.ravel().tolist() if kind == "|O" or _TEXT.fullmatch(kind) else array.ravel()
    if kind == "|O":
        return [kind, shape, [encode_item(item) for item in items]]
    if _TEXT.fullmatch(kind):
        if _padded_too_far(array.dtype, items):
            raise UnsupportedValueError(f"an array of {len(items):,} texts of which one is far longer than most")
        return [kind, shape, items]
    if _LONG.fullmatch(kind):
        parts = [(item.real, item.imag) if "c" in kind else (item,) for item in items]
        return [kind, shape, [[str(part) for part in item] for item in parts]]
    raise UnsupportedValueError(f"an array of items {array.dtype}"[:200])


def _fits(shape: Any, dtype: Any) -> bool:
    return bool(math.prod(max(1, length) for length in shape) * max(1, dtype.itemsize) <= MOST_BYTES)


def _padded_too_far(dtype: Any, items: list[Any]) -> bool:
    return bool(dtype.itemsize * len(items) > _LEAST_TEXT + _PADDING * sum(len(item) + 1 for item in items))


def _decode_array(content: Any, decode_item: Codec) -> Any:
    """Rebuild an array.

    Raises:
        ValueError, TypeError, KeyError: `_encode_array` makes no such content.
    """
    numpy: Any = sys.modules["numpy"]
    kind, shape, data = content
    if len(shape) > _MOST_DIMENSIONS or any(checked(length, int) < 0 for length in shape):
        raise ValueError("not a shape")
    if isinstance(kind, list):
        return _decode_records(kind, shape, data, decode_item)
    raw = _RAW.fullmatch(checked(kind, str)) is not None
    if not (raw or kind == "|O" or _TEXT.fullmatch(kind) or _LONG.fullmatch(kind)):
        raise ValueError("not a kind of items")
    dtype = numpy.dtype(kind)
    if not _fits(shape, dtype):
        raise ValueError("an array that is too large")
    if raw:
        return _decode_raw(numpy, dtype, shape, to_bytes(data))
    if len(checked(data, list)) != math.prod(shape):
        raise ValueError("not as many items as the shape says")
    if dtype.kind == "U" and _padded_too_far(dtype, data):
        raise ValueError("texts that are padded too far")
    array = numpy.empty(len(data), dtype=dtype)
    for place, item in enumerate(data):
        array[place] = _item(numpy, kind, item, decode_item)
    return array.reshape(shape)


def _decode_raw(numpy: Any, dtype: Any, shape: list[int], data: bytes) -> Any:
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError("not as many bytes as the shape says")
    if not data:
        return numpy.empty(shape, dtype=dtype)
    if dtype.kind == "b":  # a byte other than 0 and 1 would be a boolean that is neither
        return (numpy.frombuffer(data, dtype=numpy.uint8) != 0).reshape(shape)
    return numpy.frombuffer(data, dtype=dtype).reshape(shape).copy()  # a writable array


def _item(numpy: Any, kind: str, item: Any, decode_item: Codec) -> Any:
    if kind == "|O":
        return decode_item(item)
    if _TEXT.fullmatch(kind):
        return checked(item, str)
    parts = [numpy.longdouble(checked(part, str)) for part in item]
    if "c" not in kind:
        (part,) = parts
        return part
    real, imaginary = parts
    number = numpy.empty(1, dtype=numpy.clongdouble)
    number.real, number.imag = real, imaginary
    return number[0]


def _decode_records(names: list[Any], shape: list[int], columns: Any, decode_item: Codec) -> Any:
    numpy: Any = sys.modules["numpy"]
    if not 0 < len(names) <= _MOST_FIELDS or len(checked(columns, list)) != len(names):
        raise ValueError("not fields of records")
    fields = [_decode_array(column, decode_item) for column in columns]
    num_records = len(shape)
    if any(list(field.shape[:num_records]) != shape for field in fields):
        raise ValueError("fields of another shape than their records")
    dtype = [
        (checked(name, str), field.dtype, field.shape[num_records:]) for name, field in zip(names, fields, strict=True)
    ]
    if not _fits(shape, numpy.dtype(dtype)):
        raise ValueError("an array that is too large")
    records = numpy.zeros(shape, dtype=dtype)
    for name, field in zip(names, fields, strict=True):
        records[name] = field
    return records


def _decode_scalar(content: Any, decode_item: Codec) -> Any:
    array = _decode_array(content, decode_item)
    if array.shape != () or array.dtype.kind == "O":
        raise ValueError("not a scalar")
    return array[()]


def _decode_matrix(content: Any, decode_item: Codec) -> Any:
    numpy: Any = sys.modules["numpy"]
    array = _decode_array(content, decode_item)
    if array.ndim != 2:
        raise ValueError("not a matrix")
    return numpy.asmatrix(array)


def _decode_masked(content: Any, decode_item: Codec) -> Any:
    masked: Any = sys.modules.get("numpy.ma")
    data, mask = (_decode_array(part, decode_item) for part in content)
    if masked is None or mask.dtype.str != "|b1" or mask.shape != data.shape:
        raise ValueError("not a masked array")
    return masked.MaskedArray(data, mask=mask)


BUILD: dict[str, Callable[[Any, Codec], Any]] = {
    "numpy array": _decode_array,
    "numpy scalar": _decode_scalar,
    "numpy matrix": _decode_matrix,
    "numpy masked": _decode_masked,
}
"""Functions that rebuild a value, by tag."""

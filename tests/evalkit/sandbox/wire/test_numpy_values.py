"""Arrays and scalars of numpy's arrive as numpy's own, and forged ones are refused without harm."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from evalkit.sandbox.wire import numpy_values, values
from evalkit.sandbox.wire.errors import UnsupportedValueError
from tests.evalkit.sandbox.wire.test_values import across

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass")
ROOT = Path(__file__).resolve().parents[4]

SCALARS = [
    np.bool_(True),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.float16(0.5),
    np.float32(8.18),
    np.float64("nan"),
    np.longdouble("0.1"),
    np.complex64(1 + 2j),
    np.clongdouble(1 - 2j),
    np.str_("text"),
    np.str_(""),
    np.bytes_(b"ab"),
    np.datetime64("2024-02-29"),
    np.datetime64("NaT"),
    np.timedelta64(5, "ms"),
    np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: type(value).__name__)
def test_a_scalar_arrives_with_its_type(value: Any):
    back = across(value)
    assert type(back) is type(value)
    assert back.dtype == value.dtype or value == np.str_("")
    assert repr(back) == repr(value)


ARRAYS = [
    np.array([1, 2]),
    np.array([[1.5, np.nan], [np.inf, -0.0]]),
    np.array(5),
    np.array([5]),
    np.array([]),
    np.array([True, False]),
    np.array(["a", "longer", "\ud800"]),
    np.array([b"a", b"longer"]),
    np.array([""]),
    np.array([1, "a", [2], (3,), None, np.float32(1)], dtype=object),
    np.array(None, dtype=object),
    np.arange(12).reshape(3, 4)[::-1, ::2],
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array([1, 2], dtype=">i4"),
    np.array([1 / 3], dtype=np.longdouble),
    np.array([1 + 2j], dtype=np.clongdouble),
    np.array(["2024-01-01", "NaT"], dtype="datetime64[D]"),
    np.array([1, 2], dtype="timedelta64[25s]"),
    np.zeros((0, 3)),
    np.zeros((2, 0), dtype="U3"),
    np.array([(1, "a"), (2, "b")], dtype=[("number", "i4"), ("text", "U1")]),
    np.zeros(2, dtype=[("inner", [("x", "f4", (2, 2))])]),
    np.broadcast_to(np.array([7]), (3, 2)),
    np.matrix([[1, 2], [3, 4]]),
    np.ma.array([1, 2], mask=[True, False]),
    np.ma.array([1.5, 2.5], mask=[False, False]),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: f"{type(value).__name__}-{value.dtype}-{value.shape}"[:50])
def test_an_array_arrives_whole(value: Any):
    back = across(value)
    assert type(back) is type(value)
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    assert repr(back) == repr(value)
    assert back.flags.writeable


def test_arrays_inside_other_values_arrive():
    back = across((np.array([1]), [np.int64(2)], {"a": np.array([True])}))
    assert [type(item) for item in (back[0], back[1][0], back[2]["a"])] == [np.ndarray, np.int64, np.ndarray]


class Equal(np.ndarray):
    def __eq__(self, other):
        return True

    def __array_ufunc__(self, *args, **kwargs):
        return True

    __hash__ = None


class Zero(np.float64):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_subclasses_of_a_program_lose_their_methods():
    back = across(np.array([1, 2]).view(Equal))
    assert type(back) is np.ndarray
    assert (back == [1, 3]).tolist() == [True, False]
    back = across(Zero(1.5))
    assert type(back) is np.float64
    assert back != 2


@pytest.mark.parametrize(
    "value",
    [
        np.broadcast_to(np.uint8(0), (10**10,)),
        np.zeros(3 << 20),
        np.empty((0, 10**9)),
        np.array([object()]),
        np.void(b"ab"),
        np.dtype("i4"),
        np.add,
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_what_is_too_large_or_without_plain_items_is_refused(value: Any):
    with pytest.raises(UnsupportedValueError):
        values.encode(value)


def test_an_array_in_itself_is_refused():
    loop = np.empty(1, dtype=object)
    loop[0] = loop
    with pytest.raises(UnsupportedValueError, match="contains itself"):
        values.encode(loop)


FORGED = [
    ["<i8", [2], "AAAAAAAAAAA="],
    ["<i8", [-1], ""],
    ["<i8", [True], "AAAAAAAAAAA="],
    ["<i8", [1.0], "AAAAAAAAAAA="],
    ["<i8", [0, 10**12], ""],
    ["<i8", [0] + [2] * 60, ""],
    ["<i8", 7, ""],
    ["<i8", [1], [1]],
    ["<O", [1], "AAAAAAAAAAA="],
    ["|O", [1], []],
    ["|O", [10**6], [1]],
    ["|V8", [1], "AAAAAAAAAAA="],
    ["i8", [1], "AAAAAAAAAAA="],
    ["<i8,<i8", [1], "AAAAAAAAAAA="],
    ["<i8\n", [1], "AAAAAAAAAAA="],
    ["|S0", [10**6], ""],
    ["|S99999999", [1], ""],
    ["<U4000000", [1], ["a"]],
    ["<U1", [1], [7]],
    ["<U1", [1], "AAAA"],
    ["<M8[D", [1], "AAAAAAAAAAA="],
    ["<M8[0s]", [1], "AAAAAAAAAAA="],
    ["<f16", [1], [["one"]]],
    ["<f16", [1], [["1", "2"]]],
    ["<c32", [1], [["1"]]],
    [[], [1], []],
    [["a"], [1], [["<i8", [2], "AAAAAAAAAAAAAAAAAAAAAA=="]]],
    [["a", "a"], [], [["|b1", [], "AA=="], ["|b1", [], "AA=="]]],
    [[7], [], [["|b1", [], "AA=="]]],
    None,
    [],
]


@pytest.mark.parametrize("form", FORGED, ids=lambda form: str(form)[:40])
@pytest.mark.parametrize("tag", ["numpy array", "numpy scalar", "numpy matrix"])
def test_forms_made_by_hand_are_refused_and_take_no_memory(tag: str, form: Any):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            values.decode({"t": tag, "v": form})
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "parts", [[], [["<i8", [0], ""]], [["<i8", [0], ""], ["<i8", [0], ""]], [["<i8", [0], ""], ["|b1", [1], "AQ=="]]]
)
def test_a_masked_array_needs_a_mask_that_fits(parts: Any):
    with pytest.raises(ValueError):
        values.decode({"t": "numpy masked", "v": parts})


def test_a_boolean_that_is_neither_true_nor_false_becomes_true():
    array = values.decode({"t": "numpy array", "v": ["|b1", [2], "AgA="]})
    assert array.view(np.uint8).tolist() == [1, 0]


def test_every_form_has_a_builder():
    assert set(values._NUMPY_TAGS) == numpy_values.BUILD.keys()


def test_without_numpy_its_forms_are_refused_and_nothing_imports_it():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom evalkit.sandbox.wire import values\n"
        "try: values.decode({'t': 'numpy array', 'v': ['<i8', [1], 'AAAAAAAAAAA=']})\n"
        "except ValueError as error: print(error, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "not an encoded value: KeyError False"

"""The guest's half of a check on EvalPlus' inputs: snapshots of answers, and frames."""

from __future__ import annotations

import array
import collections
import json
import marshal
from typing import Any

import numpy as np
import pytest

from evalkit.sandbox.evalplus.batches import OTHER, PLAIN, InputBatch, snapshot, split
from evalkit.sandbox.wire.messages import ChannelError


@pytest.mark.parametrize(
    "value", [1, -0.0, "a", None, True, [1, (2.5, {"a": {1, 2}})], 10**4000, b"x", frozenset("ab")]
)
def test_plain_values_have_a_snapshot(value: Any):
    data = snapshot(value)
    assert data is not None
    assert marshal.loads(data) == value


@pytest.mark.parametrize(
    "value",
    [
        np.float64(1.0),
        [np.int64(1)],
        {"a": np.zeros(2)},
        np.array([1]),
        np.array([]),
        [np.array([1])],
        array.array("q", [1]),
        collections.Counter("a"),
        collections.UserList([1]),
        float("nan"),
        [float("nan")],
        iter([1]),
        object(),
    ],
)
def test_other_values_have_none(value: Any):
    assert snapshot(value) is None


def test_equal_sets_have_equal_snapshots_whatever_their_history():
    one, other = set(range(100)), set()
    for item in reversed(range(200)):
        other.add(item)
    other -= set(range(100, 200))
    assert snapshot(one) == snapshot(other)


def test_inputs_with_a_limit_of_their_own_get_a_frame_of_their_own():
    batch = InputBatch(lambda x: x, marshal.dumps([[0], [1], [2], [3]], 2), apart=[2], failure=lambda error: {})
    frames = [split(batch.answers()) for _ in range(3)]
    assert [len(frame) for frame in frames] == [2, 1, 1]
    assert frames[1] == [(PLAIN, marshal.dumps(2, 2))]


def test_an_answer_that_is_too_long_is_an_error_of_the_program():
    batch = InputBatch(
        lambda x: "a" * (20 << 20), marshal.dumps([[0]], 2), apart=[], failure=lambda error: {"error": str(error)}
    )
    ((kind, data),) = split(batch.answers())
    assert kind == OTHER
    assert json.loads(data)["error"].startswith("an answer of 20,971,525 bytes")


@pytest.mark.parametrize("body", [b"P", b"P\0\0", b"X\0\0\0\0", b"P\5\0\0\0abc"])
def test_a_frame_that_is_cut_off_is_refused(body: bytes):
    with pytest.raises(ChannelError):
        split(body)

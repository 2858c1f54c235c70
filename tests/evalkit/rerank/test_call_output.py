"""Properties of values: digest, type, number and truth, as Python has them."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from evalkit.rerank.call_output import CallOutput, call_output, literal_output
from evalkit.sandbox.execute import CallResult
from evalkit.sandbox.wire.canonical import value_digest
from evalkit.sandbox.wire.values import encode


def result(value: Any) -> CallResult:
    form = encode(value)
    return CallResult(outcome="value", digest=value_digest(form), form=form, has_form=True, text=repr(value))


@pytest.mark.parametrize(
    ("value", "kind", "number"),
    [
        (True, "bool", 1.0),
        (3, "int", 3.0),
        (0.5, "float", 0.5),
        (10**400, "int", math.inf),
        (-(10**400), "int", -math.inf),
        (Fraction(1, 2), "fractions.Fraction", 0.5),
        (Decimal("1.5"), "decimal.Decimal", 1.5),
        (1j, "complex", math.nan),
        ("12", "str", math.nan),
        (b"12", "bytes", math.nan),
        ([1], "list", math.nan),
        (None, "NoneType", math.nan),
        ({}, "dict", math.nan),
    ],
)
def test_a_value_has_a_type_a_number_and_a_truth(value: Any, kind: str, number: float) -> None:
    output = call_output(result(value))
    assert (output.kind, output.truth, output.is_value) == (kind, int(bool(value)), True)
    assert output.number == number or (math.isnan(output.number) and math.isnan(number))
    literal = literal_output(value)
    assert (literal.digest, literal.kind, literal.truth) == (output.digest, output.kind, output.truth)


def test_a_value_that_is_too_long_has_a_digest_and_is_true() -> None:
    output = call_output(CallResult(outcome="value", digest="0" * 32, text="a value of 99 bytes"))
    assert output[:6] == ("value", "0" * 32, "", "", "a value of 99 bytes", output.number)
    assert output.truth == 1


def test_a_failure_has_no_properties() -> None:
    output = call_output(CallResult(outcome="exception", exception="KeyError", text="KeyError: 1", cpu_s=0.5))
    assert output == CallOutput("exception", "", "", "KeyError", "KeyError: 1", output.number, -1, 0.5)


def test_text_and_name_of_an_output_are_short() -> None:
    output = call_output(CallResult(outcome="exception", text="x" * 500, exception="Wrong\ud800" * 50))
    assert (len(output.text), len(output.exception)) == (100, 100)
    output.exception.encode()

"""Kinds of values by their text, and of expected values in asserts."""

from __future__ import annotations

import pytest

from evalkit.rerank.verifier.kinds import expected_kind, kind_of


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "none"), (True, "bool"), (-3, "int"), (2.5, "float"), (float("inf"), "float"), (float("nan"), "float"),
        ("a", "text"), (b"a", "text"), ("None", "text"), ([1], "list"), ((), "tuple"), ({1: 2}, "braces"),
        ({1}, "braces"), (1e300, "float"), (1j, "float"), (..., "other"),
    ],
)  # fmt: skip
def test_the_kind_of_a_value_is_read_from_its_text(value: object, kind: str) -> None:
    assert kind_of(repr(value)) == kind


def test_a_text_that_is_cut_has_the_kind_of_its_beginning() -> None:
    assert kind_of(repr(list(range(90)))[:100]) == "list"
    assert kind_of(repr("'" * 90)[:100]) == "text"
    assert kind_of("") == "other"


@pytest.mark.parametrize(
    ("assertion", "kind"),
    [
        ("assert f(1) == 3", "int"),
        ("assert f(1) == [1, 2]", "list"),
        ("assert f('a') is None", "none"),
        ("assert 3.5 == f(2)", "float"),
        ("assert f(1) == -1, 'message'", "int"),
        ("assert f(1)", ""),
        ("assert f(1) == g(2)", ""),
        ("assert f(1) ==", ""),
        ("x = 1", ""),
        ("assert f(1) == 1; assert f(2) == 2", ""),
        ("assert " + "(" * 5000 + "1" + ")" * 5000 + " == 1", ""),
        ("assert f(1) == " + "-" * 50000 + "1", ""),
        ("assert f(\0) == 1", ""),
    ],
)
def test_the_kind_that_an_assert_expects(assertion: str, kind: str) -> None:
    assert expected_kind(assertion) == kind

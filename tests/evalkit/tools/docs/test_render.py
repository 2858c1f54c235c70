"""Texts of entries within a budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.render import fitting_text, shown_entries
from tests.evalkit.tools.docs.toy_index import NAMES

AREA = NAMES[0].entry


def test_a_whole_entry() -> None:
    assert AREA.text() == (
        "shapes.area(outline, *, unit='m')\n    Return the surface of a polygon.\n    outline: corners in order\n"
        "    returns: a float\n    >>> area([(0, 0), (1, 0), (0, 1)])\n    0.5"
    )


@pytest.mark.parametrize(
    ("kind", "first"),
    [("module", "module a.b"), ("attribute", "attribute a.b"), ("class", "class a.b(x)"), ("method", "a.b(x)")],
)
def test_the_first_line_names_the_kind(kind: str, first: str) -> None:
    assert DocsEntry(name="a.b", kind=kind, signature="b(x)").text() == first


def test_long_entries_lose_examples_before_an_entry_is_left_out() -> None:
    entries = [AREA, DocsEntry(name="a.b", kind="function", signature="b(x)", summary="Do it.", examples=">>> " * 100)]
    text = shown_entries(entries, max_chars=320)
    assert "a.b(x)\n    Do it." in text
    assert ">>> >>>" not in text
    assert shown_entries(entries, max_chars=40) == "shapes.area(outline, *, unit='m')"
    assert shown_entries(entries, max_chars=5) == ""
    assert shown_entries([], max_chars=100) == ""


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.lists(st.sampled_from([name.entry for name in NAMES]), max_size=6))
def test_the_budget_holds(budget: int, entries: list[DocsEntry]) -> None:
    assert len(shown_entries(entries, max_chars=budget)) <= budget
    assert len(fitting_text(entries, budget=budget, measure=lambda text: len(text.split())).split()) <= budget

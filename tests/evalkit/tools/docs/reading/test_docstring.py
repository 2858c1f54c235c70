"""Parts of docstrings in the common styles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.tools.docs.reading.docstring import MAX_EXAMPLE_CHARS, MAX_LINE_CHARS, split_call, split_docstring

GOOGLE = """Cut a text.

Longer words.

Args:
    text: What to cut,
        on two lines.
    size (int): Where.

Returns:
    The beginning.

Examples:
    >>> cut("abc", 1)
    'a'
"""
NUMPY = """Cut a text.

Longer words.

Parameters
----------
text
    What to cut,
    on two lines.
size : int
    Where.

Returns
-------
str
    The beginning.

Examples
--------
>>> cut("abc", 1)
'a'
"""
SPHINX = """Cut a text.

Longer words.

>>> cut("abc", 1)
'a'

:param text: What to cut, on two lines.
:param size: Where.
:type size: int
:returns: The beginning.
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_each_style_has_the_same_parts(text: str) -> None:
    parts = split_docstring(text)
    assert parts.summary == "Cut a text."
    assert parts.parameters == ("text: What to cut, on two lines.", "size (int): Where.")
    assert parts.returns.endswith("The beginning.")
    assert parts.examples == ">>> cut(\"abc\", 1)\n'a'"


def test_doctests_outside_sections_are_examples() -> None:
    text = "Add.\n\nUse it like this:\n\n    >>> for x in (1, 2):\n    ...     add(x)\n    1\n    3\n\nDone."
    assert split_docstring(text).examples == ">>> for x in (1, 2):\n...     add(x)\n1\n3"


def test_long_parts_are_cut() -> None:
    text = f"{'word ' * 500}\n\n" + "".join(f">>> f({i})\n{i}\n" for i in range(1000))
    parts = split_docstring(text)
    assert len(parts.summary) <= MAX_LINE_CHARS + 4
    assert parts.summary.endswith(" ...")
    assert MAX_EXAMPLE_CHARS - 20 < len(parts.examples) <= MAX_EXAMPLE_CHARS


@pytest.mark.parametrize(
    ("docstring", "call", "rest"),
    [
        ("area(x, y)\n\nReturn it.", "area(x, y)", "Return it."),
        ("a.area(x,\n  y)\n\nReturn it.", "area(x, y)", "Return it."),
        ("area(x)\nReturn it.\n\nMore.", "area(x)", "Return it.\n\nMore."),
        ("Return it.\n\narea(x)", "", "Return it.\n\narea(x)"),
        ("areas(x)", "", "areas(x)"),
        ("area(x", "", "area(x"),
        ("", "", ""),
    ],
)
def test_a_signature_at_the_beginning_is_split_off(docstring: str, call: str, rest: str) -> None:
    assert split_call(docstring, "area") == (call, rest)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from(" \n\t:->.=abArgsParameters\0\ud800\u202e`*_[](){}\"'\\"), max_size=300))
def test_any_text_has_parts(text: str) -> None:
    parts = split_docstring(text)
    for line in (parts.summary, parts.returns, *parts.parameters):
        assert "\n" not in line
        assert "\0" not in line


def test_terminal_codes_do_not_reach_a_line() -> None:
    assert "\x1b" not in split_docstring("Red \x1b[31m text.").summary

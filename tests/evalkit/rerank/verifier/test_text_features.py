"""Counts of a program's statements; texts that are no Python or are built to harm the parser."""

from __future__ import annotations

import math

import pytest

from evalkit.rerank.verifier.text_features import LONGEST_PROGRAM, TEXT_FEATURES, text_features


def features(program: str) -> dict[str, float]:
    return dict(zip(TEXT_FEATURES, text_features(program), strict=True))


def counts(program: str) -> dict[str, int]:
    """Return the counts without those that are 0, and without the size."""
    found = features(program)
    return {name: round(math.expm1(v)) for name, v in found.items() if v and name not in ("size", "parses")}


def test_statements_are_counted_by_kind() -> None:
    program = (
        "import math\n"
        "def f(n):\n"
        "    for i in range(n):\n"
        "        if i > 2 and n:\n"
        "            return [j for j in range(i)]\n"
        "    print(n)\n"
        "    try:\n"
        "        return g(n) if n else None\n"
        "    except ValueError:\n"
        "        raise\n"
    )
    assert counts(program) == {
        "functions": 1,
        "loops": 1,
        "branches": 3,
        "comprehensions": 1,
        "returns": 2,
        "tries": 2,
        "prints": 1,
        "imports": 1,
    }
    assert features(program)["parses"] == 1


def test_recursion_and_stubs_are_marked() -> None:
    assert features("def f(n):\n    return f(n - 1)\n")["calls_itself"] == 1
    assert features("def f(n):\n    return g(n - 1)\n")["calls_itself"] == 0
    assert features("def f(n):\n    'text'\n    pass\n")["stubs"] == 1
    assert features("def f(n):\n    ...\n")["stubs"] == 1
    assert features("def f(n):\n    return 1\n")["stubs"] == 0


def test_layout_comments_docstrings_and_names_do_not_matter() -> None:
    plain = "def f(a):\n    return a + 1\n"
    other = "def function(argument):\n    '''Text.'''\n\n    # comment\n    return (argument + 22)\n"
    assert text_features(plain) == text_features(other)


@pytest.mark.parametrize(
    "program",
    [
        "def f(:\n",
        "x = '\0'",
        "\ud800",
        "(" * 10_000,
        "-" * 40_000 + "1",
        "x = " + "[" * 300 + "]" * 300,
        "a" + ".b" * 20_000,
        "if x:\n" + "".join(" " * i + "if x:\n" for i in range(1, 200)),
        "x = 1\n" * LONGEST_PROGRAM,
    ],
)
def test_hostile_texts_have_finite_features(program: str) -> None:
    found = text_features(program)
    assert len(found) == len(TEXT_FEATURES)
    assert all(math.isfinite(value) for value in found)


def test_a_text_that_is_no_python_has_zeros() -> None:
    assert set(text_features("def f(:\n")) == {0.0}

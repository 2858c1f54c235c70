"""Tests of the licence filter: SPDX expressions, the allow-list, and documents without a licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters.licences import PERMISSIVE, allowed_licences, permits
from teacher_dump.corpus.readers.rows import licence_of
from tests.teacher_dump.corpus.filters.conftest import filtered

PERMITTED = frozenset(map(str.lower, PERMISSIVE))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0 OR MIT", True),
        ("GPL-2.0 AND MIT", False),
        ("(Apache-2.0 WITH LLVM-exception) AND BSD-3-Clause", True),
        ("MPL-2.0", False),
        ("NOASSERTION", False),
        ("MIT OR GPL-2.0 AND GPL-3.0", True),
        ("GPL-2.0 AND GPL-3.0 OR MIT", True),
        ("GPL-2.0 AND MIT OR GPL-3.0", False),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("GPL-3.0-only AND (MIT OR Apache-2.0)", False),
        ("(GPL-3.0-only OR MIT) AND (Apache-2.0 OR GPL-2.0)", True),
        ("((MIT))", True),
        ("(GPL-2.0 WITH Classpath-exception-2.0)", False),
        ("MIT/Apache-2.0", True),
        ("MIT|GPL-2.0, GPL-3.0", True),
        ("MIT, GPL-2.0", False),
        ("MIT && BSD-3-Clause", True),
    ],
)
def test_licences_are_expressions(expression: str, expected: bool) -> None:
    assert permits(expression, PERMITTED) == expected


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "()", "(MIT", "MIT)", "MIT MIT", "MIT AND", "OR MIT", "MIT OR OR MIT", "(MIT) (MIT)", ") OR MIT"),
        *("MIT WITH", "MIT WITH (x)", "WITH x", "(MIT) WITH x", "MIT OR (", "MIT,", "(" * 100_000 + "MIT"),
    ],
)
def test_malformed_expressions_are_not_permitted(expression: str) -> None:
    assert not permits(expression, PERMITTED)


Expression = tuple[str, bool]
"""An expression and whether it is permitted."""


def _joined(operator: str, operands: list[Expression]) -> Expression:
    satisfies = all if operator == "AND" else any
    return f" {operator} ".join(f"({text})" for text, _ in operands), satisfies(is_met for _, is_met in operands)


@given(
    st.recursive(
        st.sampled_from([("MIT", True), ("GPL-3.0", False), ("ISC WITH x", True), ("GPL-2.0+ with y", False)]),
        lambda inner: st.builds(_joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=1, max_size=3)),
    )
)
def test_nested_expressions_are_what_their_operands_say(expression: Expression) -> None:
    text, is_permitted = expression
    assert permits(text, PERMITTED) == is_permitted


@pytest.mark.parametrize(
    ("licences", "expression", "expected"),
    [
        (["MIT"], "MIT", True),
        (["MIT OR GPL-2.0"], "MIT OR GPL-2.0", True),
        (["MIT", "Apache-2.0"], "MIT AND Apache-2.0", True),
        (["MIT OR GPL-2.0", "GPL-3.0"], "(MIT OR GPL-2.0) AND GPL-3.0", False),
        (["GPL-3.0", "MIT OR GPL-2.0"], "GPL-3.0 AND (MIT OR GPL-2.0)", False),
        (["MIT OR GPL-2.0", "Apache-2.0"], "(MIT OR GPL-2.0) AND Apache-2.0", True),
        (["MIT", None], "MIT AND ()", False),
        ([], "", False),
    ],
)
def test_all_licences_of_a_list_must_be_allowed(licences: list[str | None], expression: str, expected: bool) -> None:
    assert licence_of({"licenses": licences}) == expression
    assert permits(expression, PERMITTED) == expected


def test_the_allow_list_can_be_widened_and_switched_off() -> None:
    assert allowed_licences("any") is None
    assert allowed_licences("MPL-2.0") == {"mpl-2.0"}
    assert allowed_licences("permissive,MPL-2.0") == {"mpl-2.0", *map(str.lower, PERMISSIVE)}
    assert len(set(PERMISSIVE)) == len(PERMISSIVE)


def test_an_unknown_licence_is_allowed_only_where_the_corpus_has_no_field(tmp_path: Path) -> None:
    def kept(found: list[Any], **settings: Any) -> tuple[list[str], Corpus]:
        rows = [
            {"content": f"{name} = {n}\n", "path": name, **({} if x is ... else {"max_stars_repo_licenses": x})}
            for n, (name, x) in enumerate(zip("abcdef", found, strict=False))
        ]
        corpus = filtered(rows, tmp_path, near_duplicates=0, **settings)
        return sorted(d.path for d in corpus), corpus

    names, corpus = kept([["MIT"], ["MIT", "GPL-3.0"], [], None, ...])
    assert names == ["a"]
    assert corpus.counts["dropped: licence not allowed"] == 1
    assert corpus.counts["dropped: licence not stated"] == 3
    names, corpus = kept([..., ...])
    assert names == ["a", "b"]
    assert corpus.counts["licence: no field, not checked"] == 2
    assert kept([["GPL-3.0"], []], licences="any")[0] == ["a", "b"]

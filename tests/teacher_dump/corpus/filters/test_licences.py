"""Tests of the licence filter: SPDX expressions, the allow-list, and documents without a licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters.licences import PERMISSIVE, allowed_licences, permits
from tests.teacher_dump.corpus.filters.conftest import filtered


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
        ("", False),
        ("NOASSERTION", False),
    ],
)
def test_licences_are_expressions(expression: str, expected: bool) -> None:
    permissive = allowed_licences("permissive")
    assert permissive is not None
    assert permits(expression, permissive) == expected


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

"""Tests of the kinds of tokens."""

from __future__ import annotations

import pytest

from student_train.evaluation.token_kinds import KINDS, kind_of, kinds_of_ids


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b" return", "keyword"),
        (b"None", "keyword"),
        (b" re", "name"),
        (b"_", "name"),
        (b"x1", "name"),
        (b"0x", "name"),
        (b" 12", "number"),
        (b"3.5", "number"),
        (b"):", "punctuation"),
        (b"):\n", "punctuation"),
        (b"    ", "space"),
        (b"\n    ", "line break"),
        (b"\r\n", "line break"),
        ("é".encode(), "other text"),
        (b"\xe4", "other text"),
        (b"", "special"),
    ],
)
def test_each_token_has_a_kind(text: bytes, kind: str) -> None:
    assert kind_of(text) == kind


def test_ids_without_a_piece_are_special() -> None:
    kinds = kinds_of_ids({0: b"", 1: b"def", 3: b"\n"}, 4)
    assert [KINDS[i] for i in kinds] == ["special", "keyword", "special", "line break"]

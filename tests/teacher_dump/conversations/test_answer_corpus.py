"""Tests of the answers of a corpus: order, numbers, filters, verdicts, and what is dropped and listed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from teacher_dump.conversations.answer_corpus import AnswerCorpus
from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.verdicts import FAILED, MISSING, Verdicts
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.settings import FilterSettings
from tests.teacher_dump.conversations.conftest import WRITER, answer, question, write_lines
from tests.teacher_dump.conversations.test_verdicts import result

PLAIN = FilterSettings(decontaminate="none")


def chat(prompt: str, response: str, **more: Any) -> dict[str, Any]:
    return {"messages": [question(prompt), answer(response)], **more}


def written(prompt: str, response: str, **more: Any) -> dict[str, Any]:
    row = {"messages": [question(prompt)], "completion": response, "prompt_ids": [1], "ids": [2], "writer": WRITER}
    return {**row, "licence": "", **more}


def corpus(path: Path, **more: Any) -> AnswerCorpus:
    return AnswerCorpus(data=str(path), **{"seed": 0, "filters": PLAIN, "drop_log": DropLog(), **more})


def read(source: AnswerCorpus, folder: Path) -> tuple[list[AnsweredConversation], dict[str, str]]:
    """Return the answers, and the reason of each dropped one by its path."""
    answers = list(source)
    assert source.drop_log is not None
    source.drop_log.save(folder)
    lines = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert Counter(f"dropped: {line['filter']}" for line in lines) == Counter(
        {name: n for name, n in source.counts.items() if name.startswith("dropped: ")}
    )
    return answers, {line["path"]: line["filter"] for line in lines}


def test_answers_to_one_conversation_follow_each_other_in_a_seeded_order(tmp_path: Path) -> None:
    rows = [chat(f"q{n % 7}", f"a{n}") for n in range(35)]
    path = write_lines(tmp_path / "t.jsonl", rows)
    answers, _ = read(corpus(path), tmp_path)
    documents = [a.document for a in answers]
    assert len(answers) == 35
    assert sum(a != b for a, b in itertools.pairwise(documents)) == 6
    assert [(a.document, a.index) for a in answers] == [(d, n % 5) for n, d in enumerate(documents)]
    again, _ = read(corpus(write_lines(tmp_path / "t.jsonl", rows)), tmp_path)
    assert again == answers
    other, _ = read(corpus(path, seed=1), tmp_path)
    assert [a.document for a in other] != documents
    few, _ = read(corpus(path, max_documents=2), tmp_path)
    assert few == answers[:10]


def test_an_answer_keeps_its_index_and_a_taken_one_is_replaced(tmp_path: Path) -> None:
    rows = [written("q", "a", index=1), written("q", "b", index=1), written("q", "c"), written("q", "d", index=0)]
    answers, _ = read(corpus(write_lines(tmp_path / "t.jsonl", rows)), tmp_path)
    assert sorted((a.response, a.index) for a in answers) == [("a", 1), ("b", 0), ("c", 2), ("d", 3)]
    assert len({a.index for a in answers}) == 4


def test_repeated_and_empty_responses_are_dropped_unless_a_model_drew_them(tmp_path: Path) -> None:
    given = [chat("q", "a"), chat("q", "a"), chat("r", "a"), chat("q", " \n")]
    answers, dropped = read(corpus(write_lines(tmp_path / "t.jsonl", given)), tmp_path)
    assert len(answers) == 2
    assert dropped == {"1": "exact duplicate", "3": "empty response"}
    draws = [written("q", "a"), written("q", "a"), written("q", "")]
    answers, dropped = read(corpus(write_lines(tmp_path / "t.jsonl", draws)), tmp_path)
    assert (len(answers), dropped) == (3, {})


def test_licences_are_checked_where_the_data_has_them(tmp_path: Path) -> None:
    licences = {"a": {"licence": "MIT"}, "b": {"licence": "GPL-3.0"}, "c": {}, "d": {"licence": None}}
    rows = [chat("q", response, **more) for response, more in licences.items()]
    answers, dropped = read(corpus(write_lines(tmp_path / "t.jsonl", rows)), tmp_path)
    assert [(a.response, a.licence) for a in answers] == [("a", "MIT")]
    assert set(dropped.values()) == {"licence not allowed", "licence not stated"}
    # The licences of prompts were checked before a model answered them.
    answers, _ = read(corpus(write_lines(tmp_path / "t.jsonl", [written("q", "a")])), tmp_path)
    assert [a.licence for a in answers] == [None]


def test_prompts_and_responses_are_checked_against_problems_that_are_scored(tmp_path: Path) -> None:
    scored = {
        "task_id": 11,
        "text": "Write a function to compute the median of all second numbers in the given list of pairs .",
        "code": "def median(pairs):\n    found = sorted(b for a, b in pairs)\n    return found[len(found) // 2]\n",
    }
    trained = {
        "task_id": 601,
        "text": "Write a python function that tells whether two strings have the same letters in another order .",
        "code": "def same(x, y):\n    for c in set(x + y):\n        if x.count(c) != y.count(c):\n"
        "            return False\n    return True\n",
    }
    write_lines(tmp_path / "mbpp.jsonl", [scored, trained])
    rows = [
        chat(trained["text"], trained["code"]),
        chat(scored["text"], "pass"),
        chat("Another question.", f"Here it is:\n{scored['code']}"),
    ]
    source = corpus(
        write_lines(tmp_path / "t.jsonl", rows),
        filters=FilterSettings(decontaminate=f"mbpp={tmp_path / 'mbpp.jsonl'}"),
    )
    answers, dropped = read(source, tmp_path)
    assert [a.path for a in answers] == ["0"]
    assert dropped == {"1": "contains mbpp", "2": "contains mbpp"}


def test_only_answers_that_passed_are_kept_and_the_others_are_listed(tmp_path: Path) -> None:
    rows = [written("q", f"a{n}", task_id="t", index=n) for n in (2, 1, 0)] + [written("q", "b", task_id="u", index=5)]
    path = write_lines(tmp_path / "t.jsonl", [*rows[:1], b"{", *rows[1:]])
    scored = result(tmp_path / "v.json", {"t": [False, True, True]}, scored=path)
    answers, dropped = read(corpus(path, verdicts=Verdicts.load(scored, data=str(path))), tmp_path)
    assert [(a.response, a.index) for a in answers] == [("a0", 0), ("a1", 1)]
    assert sorted(dropped.values()) == [FAILED, MISSING, "not JSON"]


@pytest.mark.parametrize(("train_on", "count"), [("last", 1), ("all", 2)])
def test_answers_are_counted(train_on: str, count: int, tmp_path: Path) -> None:
    row = {"messages": [question("q"), answer("a"), question("r"), answer("b")]}
    source = corpus(write_lines(tmp_path / "t.jsonl", [row]), train_on=train_on)
    answers, _ = read(source, tmp_path)
    assert len(answers) == source.counts["answers read"] == source.counts["prompts"] == count

"""Tests of verdicts: the right answer's verdict, by order or by index, and refusal of those of other answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.storage.atomic import file_sha256
from teacher_dump.conversations.verdicts import FAILED, MISSING, AnswerNumbers, Verdicts
from teacher_dump.errors import DumpError


def result(path: Path, tasks: dict[str, list[bool]], *, scored: Path | None = None) -> Path:
    """Write the parts of a result of `evalkit score` that matter."""
    samples = None if scored is None else {"path": str(scored), "sha256": file_sha256(scored)}
    verdicts = {task: [{"passed": passed, "outcome": ""} for passed in marks] for task, marks in tasks.items()}
    path.write_text(json.dumps({"tasks": verdicts, "samples": samples}))
    return path


def test_verdicts_on_a_file_are_in_the_order_of_its_rows(tmp_path: Path) -> None:
    data = tmp_path / "responses.jsonl"
    data.write_text("x\n")
    verdicts = Verdicts.load(
        result(tmp_path / "v.json", {"a": [True, False], "b": [False]}, scored=data), data=str(data)
    )
    numbers = AnswerNumbers(verdicts)
    rows = [("b", 7), ("a", 1), ("a", 0), ("a", 2), ("c", 0)]  # the index is not the order
    drops = [verdicts.drop(task, numbers.next(task, index)) for task, index in rows]
    assert [drop.reason if drop else None for drop in drops] == [FAILED, None, FAILED, MISSING, MISSING]


def test_verdicts_on_samples_of_evalkit_are_by_index(tmp_path: Path) -> None:
    verdicts = Verdicts.load(result(tmp_path / "v.json", {"a": [True, False]}), data="nowhere.jsonl")
    numbers = AnswerNumbers(verdicts)
    drops = [verdicts.drop("a", numbers.next("a", index)) for index in (1, 0, None)]
    assert [drop.reason if drop else None for drop in drops] == [FAILED, None, MISSING]


def test_an_answer_has_to_pass_every_benchmark_that_has_its_task(tmp_path: Path) -> None:
    tasks = {"HumanEval/0": [True, True, False], "humaneval+:HumanEval/0": [True, False, True]}
    verdicts = Verdicts.load(result(tmp_path / "v.json", tasks), data="")
    assert verdicts.passed == {"HumanEval/0": (True, False, False)}


def test_verdicts_on_another_file_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "responses.jsonl"
    data.write_text("x\n")
    path = result(tmp_path / "v.json", {"a": [True]}, scored=data)
    data.write_text("y\n")
    with pytest.raises(DumpError, match=r"v\.json: is of a file with digest .*score this file with"):
        Verdicts.load(path, data=str(data))
    with pytest.raises(DumpError, match="expected --data to be the file of answers that was scored"):
        Verdicts.load(path, data=str(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tasks": 7}', '{"tasks": {"a": [7]}}', '{"tasks": {"a": 7}}'])
def test_another_file_is_no_result(content: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(DumpError, match=r"v\.json: not a result of `evalkit score` .*--json"):
        Verdicts.load(tmp_path / "v.json", data="")
    with pytest.raises(DumpError, match=r"nowhere\.json: cannot read"):
        Verdicts.load(tmp_path / "nowhere.json", data="")


def test_a_mark_that_is_not_true_is_no_pass(tmp_path: Path) -> None:
    marks: dict[str, Any] = {"a": [1, "true", None]}
    assert Verdicts.load(result(tmp_path / "v.json", marks), data="").passed == {"a": (False, False, False)}

"""Samples of several files: numbering, prompts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.samples.merged import MergedSamples, read_merged
from evalkit.tasks.base import Benchmark
from tests.evalkit.commands import RIGHT, WRONG, write_lines


def merged(*paths: Path, benchmark: Benchmark, limit: int | None = None) -> tuple[MergedSamples, list[str]]:
    notes: list[str] = []
    return read_merged(paths, benchmark, sanitize=False, limit=limit, note=notes.append), notes


def test_samples_of_two_files_are_numbered_in_one_row(tmp_path: Path, humaneval: Benchmark) -> None:
    other = {"task_id": "HumanEval/2", "completion": "    return 0\n"}
    first = write_lines(tmp_path / "a.jsonl", WRONG, other)
    second = write_lines(tmp_path / "b.jsonl", RIGHT | {"prompt": "text"}, WRONG)
    samples, notes = merged(first, second, benchmark=humaneval)
    assert [problem.task_id for problem in samples.problems] == ["HumanEval/2", "HumanEval/53"]
    assert [(sample.index, sample.completion) for sample in samples.of("HumanEval/53")] == [
        (0, WRONG["completion"]),
        (1, RIGHT["completion"]),
        (2, WRONG["completion"]),
    ]
    assert samples.prompts == {"HumanEval/53": "text"}
    assert notes == ["162 of 164 humaneval problems have no sample: left out"]
    limited, _ = merged(first, second, benchmark=humaneval, limit=1)
    assert [sample.task_id for sample in limited.samples] == ["HumanEval/2"]


def test_one_file_under_two_names_is_refused(tmp_path: Path, humaneval: Benchmark) -> None:
    first, second = write_lines(tmp_path / "a.jsonl", RIGHT), write_lines(tmp_path / "b.jsonl", RIGHT)
    with pytest.raises(EvalError, match=r"b\.jsonl: holds the same samples as .*a\.jsonl"):
        merged(first, second, benchmark=humaneval)


def test_two_prompts_of_one_problem_are_refused(tmp_path: Path, humaneval: Benchmark) -> None:
    path = write_lines(tmp_path / "a.jsonl", RIGHT | {"prompt": "a"}, WRONG | {"prompt": "b"})
    with pytest.raises(EvalError, match=r"line 2: the prompt of HumanEval/53 differs from that at .*line 1"):
        merged(path, benchmark=humaneval)


def test_rows_of_a_chat_protocol_name_the_message_that_they_do_not_hold(tmp_path: Path, humaneval: Benchmark) -> None:
    def row(protocol: str) -> dict[str, object]:
        return RIGHT | {"prompt": "Below is a script:\n", "settings": {"protocol": protocol}}

    (problem,) = (item for item in humaneval.problems if item.task_id == "HumanEval/53")
    shown, _ = merged(write_lines(tmp_path / "a.jsonl", row("humaneval-evalplus-chat-v1+changed")), benchmark=humaneval)
    assert problem.prompt.strip() in shown.prompts["HumanEval/53"]
    assert shown.prompts["HumanEval/53"].endswith("Below is a script:\n")
    hidden, _ = merged(write_lines(tmp_path / "b.jsonl", row("humaneval-codet-chat-v1")), benchmark=humaneval)
    assert "def add(x: int, y: int):" in hidden.prompts["HumanEval/53"]
    assert ">>>" not in hidden.prompts["HumanEval/53"]
    unknown, _ = merged(write_lines(tmp_path / "c.jsonl", row("other")), benchmark=humaneval)
    assert unknown.prompts == {"HumanEval/53": "Below is a script:\n"}
    with pytest.raises(EvalError, match="the prompt of HumanEval/53 differs"):
        merged(tmp_path / "a.jsonl", tmp_path / "b.jsonl", benchmark=humaneval)

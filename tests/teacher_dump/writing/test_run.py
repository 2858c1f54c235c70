"""Tests of writing from settings to responses.jsonl."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teacher_dump.errors import DumpError
from teacher_dump.run.signals import StopSignals
from teacher_dump.writing import run as run_module
from teacher_dump.writing.engines import hf
from teacher_dump.writing.task import response_seed
from tests.teacher_dump.writing.helpers import (
    TEXTS,
    lines,
    prepared,
    save_prompts,
    write,
    writing_config,
    writing_settings,
)


@pytest.fixture(scope="module")
def whole(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of responses that were written without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = write(
        writing_config(tiny_teacher, folder / "out"), writing_settings(save_prompts(folder / "prompts.jsonl"))
    )
    assert outcome.is_complete
    assert outcome.new_tasks == 4
    return folder / "out"


def test_every_response_is_written_once_with_its_seed(whole: Path, tiny_teacher: Path) -> None:
    found = lines(whole)
    assert [(line["task_id"], line["index"]) for line in found] == [
        (str(n), i) for n in range(len(TEXTS)) for i in range(3)
    ]
    for line in found:
        assert line["messages"] == [{"role": "user", "content": TEXTS[int(line["task_id"])]}]
        assert line["seed"] == response_seed(0, line["document"], line["index"])
        assert line["finish_reason"] in ("stop", "length")
        assert line["logprob"] < 0
        assert line["finish_reason"] == "stop" or len(line["ids"]) == 12
        assert line["writer"]["name"] == tiny_teacher.name
        assert line["writer"]["temperature"] == 1.0
    assert len({tuple(line["ids"]) for line in found}) > len(TEXTS)


def test_the_ids_of_prompt_and_response_are_those_of_the_texts(whole: Path, tiny_teacher: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    for line in lines(whole):
        assert tokenizer.decode(line["prompt_ids"]) == f"<|endoftext|>{line['messages'][0]['content']}\n"
        ids = line["ids"][:-1] if line["finish_reason"] == "stop" else line["ids"]
        if "\ufffd" not in line["completion"]:
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == line["completion"]


def test_a_second_start_writes_nothing(whole: Path, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "start_writer", None)
    (whole.parent / "prompts.jsonl").rename(whole.parent / "away")  # the prompts are no longer needed
    before = (whole / "responses.jsonl").read_bytes()
    settings = writing_settings(whole.parent / "prompts.jsonl")
    assert write(writing_config(tiny_teacher, whole), settings).is_complete
    assert (whole / "responses.jsonl").read_bytes() == before
    (whole.parent / "away").rename(whole.parent / "prompts.jsonl")


@pytest.mark.parametrize(
    ("change", "name"),
    [({"samples": 2}, "samples"), ({"top_p": 0.5}, "writer"), ({"answers_per_task": 9}, "answers_per_task")],
)
def test_other_settings_are_refused_by_name(whole: Path, tiny_teacher: Path, change: dict[str, Any], name: str) -> None:
    with pytest.raises(DumpError, match=f"responses of other settings \\({name} "):
        write(writing_config(tiny_teacher, whole), writing_settings(whole.parent / "prompts.jsonl", **change))


class Interrupted(Exception):
    """Ends a run between two tasks."""


def test_an_interrupted_run_is_resumed_and_repeats_no_task(
    whole: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, settings = writing_config(tiny_teacher, tmp_path), writing_settings(whole.parent / "prompts.jsonl")
    real = hf.TransformersWriter.write
    taken: list[str] = []

    def interrupted(self: hf.TransformersWriter, tasks: Any, on_tokens: Any) -> Iterator[Any]:
        for number, result in enumerate(real(self, tasks, on_tokens)):
            if number == 2:
                raise Interrupted
            yield result

    def counted(self: hf.TransformersWriter, tasks: Any, on_tokens: Any) -> Iterator[Any]:
        for task, responses in real(self, tasks, on_tokens):
            taken.append(task.name)
            yield task, responses

    monkeypatch.setattr(hf.TransformersWriter, "write", interrupted)
    with pytest.raises(Interrupted):
        write(config, settings)
    assert len(list((tmp_path / "writing").glob("0*.jsonl"))) == 2
    assert not (tmp_path / "responses.jsonl").exists()
    monkeypatch.setattr(hf.TransformersWriter, "write", counted)
    outcome = write(config, settings)
    assert (outcome.is_complete, outcome.reused_tasks, outcome.new_tasks) == (True, 2, 2)
    assert len(taken) == 2
    assert (tmp_path / "responses.jsonl").read_bytes() == (whole / "responses.jsonl").read_bytes()


def test_two_workers_write_the_same_as_one(whole: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    settings = writing_settings(whole.parent / "prompts.jsonl")
    first = write(writing_config(tiny_teacher, tmp_path, worker="1/2"), settings)
    assert (first.is_complete, first.new_tasks, first.open_tasks) == (False, 2, 2)
    second = write(writing_config(tiny_teacher, tmp_path, worker="2/2"), settings)
    assert second.is_complete
    assert second.reused_tasks == 2
    assert (tmp_path / "responses.jsonl").read_bytes() == (whole / "responses.jsonl").read_bytes()


def test_sigusr1_finishes_the_current_task(
    whole: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, settings = writing_config(tiny_teacher, tmp_path), writing_settings(whole.parent / "prompts.jsonl")
    real = hf.TransformersWriter._write_batch
    stop_signals = StopSignals()

    def warned(self: hf.TransformersWriter, *arguments: Any) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGUSR1)
        yield from real(self, *arguments)

    monkeypatch.setattr(hf.TransformersWriter, "_write_batch", warned)
    with stop_signals.handled():
        outcome = write(config, settings, stop_signals)
    assert (outcome.is_complete, outcome.new_tasks, outcome.open_tasks) == (False, 1, 3)
    assert list(tmp_path.glob("**/.*.part")) == []


def test_damaged_lists_are_made_again(whole: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    config, settings = writing_config(tiny_teacher, tmp_path), writing_settings(whole.parent / "prompts.jsonl")
    names = [task.name for task in prepared(config, settings).tasks]
    (tmp_path / "writing" / "prompts.jsonl").write_text("{}\n")
    assert [task.name for task in prepared(config, settings).tasks] == names
    (tmp_path / "writing" / "plan.json").write_text("{}\n")
    assert [task.name for task in prepared(config, settings).tasks] == names


def test_prompts_that_cannot_be_used_are_counted_and_listed(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_prompts(tmp_path / "p.jsonl", ["total = 0", "total = 0", " ", "a<|endoftext|>", "print(total)\n" * 400])
    job = prepared(writing_config(tiny_teacher, tmp_path / "out"), writing_settings(file))
    assert job.counts == {
        "dropped: blank": 1,
        "dropped: contains special tokens": 1,
        "dropped: duplicate": 1,
        "dropped: longer than the writer's context": 1,
        "prompts read": 5,
        "prompts used": 1,
    }
    assert (tmp_path / "out" / "writing" / "dropped.jsonl").read_text().count("\n") == 4
    with pytest.raises(DumpError, match="found no usable prompt"):
        prepared(
            writing_config(tiny_teacher, tmp_path / "none"),
            writing_settings(save_prompts(tmp_path / "q.jsonl", ["print(total)\n" * 400])),
        )


def test_max_documents_limits_the_prompts(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    job = prepared(writing_config(tiny_teacher, tmp_path / "out", max_documents=3), writing_settings(prompts))
    assert sum(len(task.prompts) for task in job.tasks) == 3


def test_responses_without_a_plan_are_not_touched(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "responses.jsonl").write_text("{}\n")
    with pytest.raises(DumpError, match="without a readable plan"):
        write(writing_config(tiny_teacher, tmp_path / "out"), writing_settings(prompts))

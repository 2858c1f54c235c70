"""Tests of the completions that are shown beside a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.evaluation import completions
from tests.student_train.toy import run, toy_config


@pytest.fixture(scope="module", autouse=True)
def short_completions() -> None:
    """Runs of these tests complete their prompts in full."""


def greedy(model: Any, tokenizer: Any, prompt: str, number: int) -> str:
    """Return a greedy continuation, a forward pass for each token."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(tokenizer.decode(ids))
    for _ in range(number):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids, skip_special_tokens=True))[start:]


@pytest.mark.slow
def test_completions_are_greedy(world: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(world.teacher_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(world.teacher_dir)
    prompts = ["def f(x):\n", "return x", "class A"]
    expected = [greedy(model, tokenizer, prompt, 10) for prompt in prompts]
    assert completions.complete(model, world.teacher_dir, prompts=prompts, max_new_tokens=10) == expected
    assert len(set(expected)) > 1


@pytest.mark.slow
def test_a_run_writes_those_of_teacher_student_and_control(world: Any, at_home: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run(toy_config(world, tmp_path / "o", max_steps=2, control=True))
    main, control = (json.loads((p / completions.NAME).read_text()) for p in (tmp_path / "o", tmp_path / "o/control"))
    assert main["format"] == 1
    assert main["prompts"] == control["prompts"] == list(completions.PROMPTS)
    assert set(main["completions"]) == {"teacher", "student"}
    assert set(control["completions"]) == {"student"}
    teacher = AutoModelForCausalLM.from_pretrained(world.teacher_dir, dtype=torch.float32)
    assert main["completions"]["teacher"] == completions.complete(teacher, world.teacher_dir)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "o", dtype=torch.float32)
    assert main["completions"]["student"] == completions.complete(student, tmp_path / "o")


def test_a_student_that_is_not_the_teacher_has_no_column_of_it(world: Any, tmp_path: Path) -> None:
    run(toy_config(world, tmp_path / "o", student=str(world.teacher_dir), max_steps=2))
    assert set(json.loads((tmp_path / "o" / completions.NAME).read_text())["completions"]) == {"student"}


def test_a_model_that_does_not_generate_costs_no_run(world: Any, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tools.llama(vocab=300)
    monkeypatch.setattr(model, "generate", lambda **_: (_ for _ in ()).throw(NotImplementedError("no cache\nmore")))
    said: list[str] = []
    assert completions.try_to_complete(model, world.teacher_dir, log=said.append) is None
    assert said == ["no completions: found that the model does not generate (NotImplementedError: no cache)"]

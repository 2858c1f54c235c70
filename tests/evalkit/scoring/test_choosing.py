"""`evalkit score --rerank`: one command from a checkpoint to choices, resumed after an end at any stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from evalkit.generation.base import Answer, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.rerank.store import EvidenceStore
from evalkit.sandbox.execute import execute_calls
from evalkit.tasks.base import Benchmark
from evalkit.tasks.presets import PromptProtocol
from tests.evalkit.commands import RIGHT, call, write_lines
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

FAST = ("--limit", 3, "--n", 4)
TESTS = {
    "HumanEval/0": "has_close_elements([1.0, 2.0], 0.5) == False\nassert has_close_elements([1.0, 1.2], 0.5) == True",
    "HumanEval/1": "separate_paren_groups('()') == ['()']\nassert separate_paren_groups('() ()') == ['()', '()']",
    "HumanEval/2": "truncate_number(3.5) == 0.5\nassert truncate_number(1.25) == 0.25",
}


class WritingEngine(FixedAnswerEngine):
    """Writes two wrong solutions, then right ones; tests of its own; and ends after a number of answers."""

    def __init__(self, protocol: PromptProtocol, problems: dict[str, str], written: list[str], end_after: int) -> None:
        super().__init__("")
        self._protocol, self._problems, self._written, self._end_after = protocol, problems, written, end_after

    def generate(
        self, prompts: list[Prompt], *, on_answer: OnAnswer, on_tokens: OnTokens, follow_ups: FollowUps | None = None
    ) -> None:
        for prompt in prompts:
            if len(self._written) == self._end_after:
                raise KeyboardInterrupt
            self._written.append(self._protocol.name)
            on_answer(Answer(prompt=prompt, completion=self._text_of(prompt), stop_reason="stop", tokens=1))

    def _text_of(self, prompt: Prompt) -> str:
        if self._protocol.answer == "tests":
            return TESTS[prompt.task_id]
        return f"    return {'[' * prompt.index}{']' * prompt.index}\n" if prompt.index < 2 else self._right(prompt)

    def _right(self, prompt: Prompt) -> str:
        return f"{self._problems[prompt.task_id]}    # {prompt.index}\n"


@pytest.fixture
def written(humaneval: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Install the engine; the function returns the list of protocols that it writes for, up to a number of answers."""
    bodies = {item.task_id: item.reference.removeprefix(item.prompt) for item in humaneval.problems}

    def install(end_after: int = -1) -> list[str]:
        answers: list[str] = []
        monkeypatch.setattr(
            "evalkit.generation.run.load_engine",
            lambda _, protocol, settings: WritingEngine(protocol, bodies, answers, end_after),
        )
        return answers

    return install


def score(checkpoint: Path, out: Path, *options: object) -> Result:
    return call("score", checkpoint, *FAST, "--rerank", "srank,majority", "--out", out, *options)


def result_of(out: Path) -> dict[str, Any]:
    """Return the result without what differs from run to run."""
    result = json.loads((out / "score.json").read_text())
    choices = result["rerank"]["humaneval"]
    for key in ("time", "path", "outputs_executed"):
        choices["evidence"].pop(key)
    choices["tests"].pop("path")
    choices.pop("page")
    for verdicts in result["tasks"].values():
        for verdict in verdicts:
            verdict.pop("cpu_s")
    return {key: value for key, value in result.items() if key != "command"}


@pytest.mark.slow
def test_one_command_writes_samples_tests_evidence_and_choices(tmp_path: Path, checkpoint: Path, written: Any) -> None:
    answers = written()
    done = score(checkpoint, tmp_path)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "score.evidence.arrow", "score.html", "score.json", "score.rerank.html", "score.samples.jsonl",
        "score.tests.jsonl",
    ]  # fmt: skip
    assert {*answers} == {"humaneval-codet-v1+changed", "humaneval-codet-tests-v1+changed"}
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == 0.5
    choices = result["rerank"]["humaneval"]
    assert list(choices["scores"]) == ["random", "srank", "majority", "oracle"]
    assert {name: score["pass@1"] for name, score in choices["scores"].items()} == {
        "random": 0.5, "srank": 1.0, "majority": 1.0, "oracle": 1.0,
    }  # fmt: skip
    assert choices["differences"]["srank"]["pass@1"]["mean"] == 0.5
    assert choices["tasks"]["HumanEval/2"]["srank"] == {"sample": 2, "right": True, "group": 2, "pass@1": 1.0}
    assert (choices["evidence"]["distinct_programs"], choices["evidence"]["tests"]) == (9, 6)
    assert choices["visible_tests"]["methods"] == []
    assert choices["tests"]["problems_without"] == 0
    assert "srank" in (tmp_path / "score.html").read_text()
    assert 'href="score.rerank.html"' in (tmp_path / "score.html").read_text()
    assert "separate_paren_groups(&#39;() ()&#39;)" in (tmp_path / "score.rerank.html").read_text()
    assert "srank" in done.output
    assert "12 samples, 9 distinct programs, 6 calls, 6 tests" in done.output


@pytest.mark.parametrize(("end_after", "num_new"), [(5, 19), (12, 12), (17, 7)])
@pytest.mark.slow
def test_a_run_that_ended_while_it_generated_goes_on(
    tmp_path: Path, checkpoint: Path, written: Any, end_after: int, num_new: int
) -> None:
    written()
    assert score(checkpoint, tmp_path / "whole").exit_code == 0
    written(end_after)
    assert score(checkpoint, tmp_path / "ended").exit_code == 130
    assert not (tmp_path / "ended" / "score.json").exists()
    answers = written()
    assert score(checkpoint, tmp_path / "ended").exit_code == 0
    assert len(answers) == num_new
    assert result_of(tmp_path / "ended") == result_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_ended_while_it_collected_evidence_goes_on(
    tmp_path: Path, checkpoint: Path, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written()
    assert score(checkpoint, tmp_path / "whole").exit_code == 0
    add, outputs = EvidenceStore.add, []

    def end(store: EvidenceStore, *output: Any) -> None:
        if len(outputs) == 7:
            raise KeyboardInterrupt
        outputs.append(output)
        add(store, *output)

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "add", end)
        assert score(checkpoint, tmp_path / "ended").exit_code == 130
    answers = written()
    executed: list[str] = []

    def watched(programs: Any, **settings: Any) -> Any:
        def counted() -> Any:
            for program in programs:
                executed.extend(program.calls)
                yield program

        return execute_calls(counted(), **settings)

    monkeypatch.setattr("evalkit.rerank.collect.execute_calls", watched)
    assert score(checkpoint, tmp_path / "ended").exit_code == 0
    assert not answers
    assert len(executed) == 18 - 7
    assert result_of(tmp_path / "ended") == result_of(tmp_path / "whole")


@pytest.mark.slow
def test_all_that_a_plain_score_says_stays(tmp_path: Path, checkpoint: Path, written: Any) -> None:
    written()
    plain = ("--protocol", "humaneval-codet-v1", "--no-html")
    assert score(checkpoint, tmp_path / "a", *plain).exit_code == 0
    assert call("score", checkpoint, *FAST, "--out", tmp_path / "b", *plain).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["score.json", "score.samples.jsonl"]
    both, alone = result_of(tmp_path / "a"), json.loads((tmp_path / "b" / "score.json").read_text())
    assert not (tmp_path / "a" / "score.rerank.html").exists()
    both.pop("rerank")
    alone.pop("command")
    for verdicts in alone["tasks"].values():
        for verdict in verdicts:
            verdict.pop("cpu_s")
    assert both == alone
    assert call("score", checkpoint, "--limit", 1, "--out", tmp_path / "c").exit_code == 0
    assert json.loads((tmp_path / "c" / "score.json").read_text())["protocol"]["humaneval"]["name"] == (
        "humaneval-openai-v1"
    )


@pytest.mark.slow
def test_changed_tests_of_the_benchmark_change_verdicts_and_no_choice(
    tmp_path: Path, checkpoint: Path, humaneval: Benchmark, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written()
    assert score(checkpoint, tmp_path / "a").exit_code == 0
    problems = tuple(
        replace(item, test=item.test.replace("def check(candidate):", "def check(candidate):\n    assert False\n"))
        for item in humaneval.problems
    )
    monkeypatch.setattr("evalkit.tasks.registry.load", lambda *_, **__: replace(humaneval, problems=problems))
    assert score(checkpoint, tmp_path / "b").exit_code == 0
    first, second = ([*result_of(tmp_path / name)["rerank"]["humaneval"]["tasks"].values()] for name in "ab")
    keys = ("sample", "group")
    assert [{m: [c[m][k] for k in keys] for m in c} for c in first] == [
        {m: [c[m][k] for k in keys] for m in c} for c in second
    ]
    assert all(choice["srank"]["right"] for choice in first)
    assert not any(choice["srank"]["right"] for choice in second)


@pytest.mark.slow
def test_a_checkpoint_with_a_chat_template_is_asked_in_a_chat(tmp_path: Path, checkpoint: Path, written: Any) -> None:
    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{ messages }}"}))
    answers = written()
    assert score(copy, tmp_path / "out").exit_code == 0
    assert "humaneval-codet-tests-chat-v1+changed" in answers
    shown = written()
    done = score(copy, tmp_path / "shown", "--protocol", "humaneval-openai-v1", "--temperature", 0.8)
    assert done.exit_code == 0
    assert "humaneval-openai-v1+changed" in shown
    choices = json.loads((tmp_path / "shown" / "score.json").read_text())["rerank"]["humaneval"]
    assert choices["visible_tests"]["docstring_examples"]


def test_without_a_valid_test_the_score_is_written_and_the_choice_is_random(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine("    return None\n"))
    done = score(checkpoint, tmp_path)
    assert done.exit_code == 0, done.output
    assert "tests: 3 of 3 humaneval problems have no valid test (HumanEval/0, HumanEval/1, HumanEval/2)" in done.output
    choices = json.loads((tmp_path / "score.json").read_text())["rerank"]["humaneval"]
    assert choices["scores"]["srank"]["pass@1"] == choices["scores"]["random"]["pass@1"]


def test_what_cannot_be_is_said_before_anything_is_generated(tmp_path: Path, checkpoint: Path, written: Any) -> None:
    answers = written()
    done = call("score", checkpoint, "--rerank", "best", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "--rerank: 'best' is unknown, expected some of random, majority" in done.output
    done = call("score", "--samples", write_lines(tmp_path / "s.jsonl", RIGHT), "--rerank", "srank")
    assert done.exit_code == 2
    assert "--rerank: has no effect with --samples" in done.output
    done = score(checkpoint, tmp_path / "out", "--tasks", "mbpp+", "--data-dir", tmp_path)
    assert done.exit_code == 1
    assert not answers
    assert not (tmp_path / "out").exists()

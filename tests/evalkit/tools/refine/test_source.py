"""Tests of refinement as a whole: rounds, ends, files, resumption, and what a model is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.generation.base import Answer, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.tools.refine.prompts import LEAST_TEMPERATURES
from tests.evalkit.commands import call
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

RIGHT = """\
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))
"""
FALSE = "    return False\n"
BROKEN = "    return undefined\n"
FORM = ("--refine-form", "conversation")
"""The form in which the engine below sees how many attempts failed."""
ARGUMENTS = ("--tasks", "humaneval", "--protocol", "humaneval-openai-v1", "--limit", 1, "--no-html", "--workers", 1)


class ScriptedEngine(FixedAnswerEngine):
    """Gives the first answer to a prompt without a comment of refinement, the second to one with one, and so on."""

    def __init__(self, *answers: str, most: int = 1000) -> None:
        super().__init__("")
        self.answers, self.most = answers, most
        self.prompts: list[Prompt] = []

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        """Deliver the answers in the order of the prompts."""
        for prompt in prompts:
            if len(self.prompts) == self.most:
                raise KeyboardInterrupt
            self.prompts.append(prompt)
            shown = prompt.text + "".join(turn.content for turn in prompt.earlier) + (prompt.user or "")
            text = self.answers[shown.count("is not correct.")]
            on_answer(Answer(prompt=prompt, completion=text, stop_reason="stop", tokens=10))


def refine(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, out: Path, engine: ScriptedEngine, *more: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first sample and the result of a refined score."""
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: engine)
    done = call("score", checkpoint, *ARGUMENTS, "--out", out, *more)
    assert done.exit_code == 0, done.output
    first = (out / "score.samples.jsonl").read_text().splitlines()[0]
    return json.loads(first), json.loads((out / "score.json").read_text())


def test_a_program_is_mended(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = ScriptedEngine(BROKEN, FALSE, RIGHT)
    sample, result = refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", 2, *FORM)
    assert sample["completion"] == RIGHT
    assert sample["tokens"] == 30
    attempts = sample["attempts"]
    assert [attempt["visible_passed"] for attempt in attempts] == [0, 1, 2]
    assert [attempt["visible_outcome"] for attempt in attempts] == ["NameError", "wrong", "pass"]
    assert [attempt["is_answer"] for attempt in attempts] == [False, False, True]
    assert attempts[-1]["end"] == "passed"
    assert result["scores"]["humaneval"]["pass@1"] == 1
    assert result["refine"]["humaneval"]["attempts"] == {"3": 1}
    assert result["refine"]["humaneval"]["tokens"] == 30
    assert result["generation"]["refine"] == 2


@pytest.mark.parametrize(
    ("answers", "refinements", "end", "chosen"),
    [
        ((RIGHT,), 2, "passed", 0),
        ((BROKEN, FALSE, FALSE), 1, "limit", 1),
        ((FALSE, BROKEN), 3, "worse", 0),
        ((BROKEN, BROKEN + "    # again\n"), 3, "repeated", 0),
    ],
)
@pytest.mark.slow
def test_refinement_ends(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: tuple[str, ...],
    refinements: int,
    end: str,
    chosen: int,
):
    engine = ScriptedEngine(*answers)
    sample, _ = refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", refinements, *FORM)
    assert sample["attempts"][-1]["end"] == end
    assert sample["completion"] == answers[chosen]


@pytest.mark.slow
def test_problems_without_examples_are_not_refined(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = ScriptedEngine(BROKEN, BROKEN)
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: engine)
    arguments = [argument if argument != 1 else 40 for argument in ARGUMENTS[:-2]]
    done = call("score", checkpoint, *arguments, "--out", tmp_path, "--refine", 1)
    assert done.exit_code == 0, done.output
    assert "2 of 40 humaneval problems show no test in their prompt: not refined" in done.output
    samples = map(json.loads, (tmp_path / "score.samples.jsonl").read_text().splitlines())
    ends = {sample["task_id"]: sample["attempts"][-1]["end"] for sample in samples}
    assert [task for task, end in sorted(ends.items()) if end == "no examples"] == ["HumanEval/32", "HumanEval/38"]
    done = call("score", checkpoint, "--protocol", "humaneval-codet-v1", "--n", 1, "--refine", 1, "--out", tmp_path)
    assert done.exit_code == 1
    assert "protocol humaneval-codet-v1+changed shows no test" in done.output


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    more = ("--refine", 2, "--n", 2, "--temperature", 0.8, *FORM)
    whole, _ = refine(monkeypatch, checkpoint, tmp_path / "a", ScriptedEngine(BROKEN, FALSE, RIGHT), *more)
    engine = ScriptedEngine(BROKEN, FALSE, RIGHT, most=3)
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: engine)
    assert call("score", checkpoint, *ARGUMENTS, "--out", tmp_path / "b", *more).exit_code == 130
    engine = ScriptedEngine(BROKEN, FALSE, RIGHT)
    assert refine(monkeypatch, checkpoint, tmp_path / "b", engine, *more)[0] == whole
    assert len(engine.prompts) == 3
    (tmp_path / "b" / "score.samples.jsonl").unlink()  # all attempts are still there
    engine = ScriptedEngine()
    assert refine(monkeypatch, checkpoint, tmp_path / "b", engine, *more)[0] == whole
    assert not engine.prompts


def test_another_first_attempt_makes_later_ones_anew(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    refine(monkeypatch, checkpoint, tmp_path, ScriptedEngine(BROKEN, RIGHT), "--refine", 1, *FORM)
    (tmp_path / "score.samples.jsonl").unlink()
    (tmp_path / "score.attempt0.jsonl").unlink()
    engine = ScriptedEngine(BROKEN.replace("undefined", "unknown"), FALSE)
    sample, _ = refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", 1, *FORM)
    assert len(engine.prompts) == 2
    assert sample["completion"] == FALSE


def test_more_refinements_begin_where_fewer_ended(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    refine(monkeypatch, checkpoint, tmp_path, ScriptedEngine(BROKEN, FALSE, RIGHT), "--refine", 1, *FORM)
    engine = ScriptedEngine(BROKEN, FALSE, RIGHT)
    sample, _ = refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", 2, *FORM)
    assert len(engine.prompts) == 1
    assert sample["completion"] == RIGHT


def test_no_scoring_test_is_shown(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, humaneval):
    """The first answer fails: all that the second prompt adds is the answer, and the prompt's own example."""
    engine = ScriptedEngine(FALSE, RIGHT)
    refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", 1, *FORM)
    problem = humaneval.problems[0]
    assert engine.prompts[1].text == (
        problem.prompt
        + FALSE.rstrip()
        + "\n\n\n# The function above is not correct. This test fails:\n"
        + "# assert has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) == True\n"
        + "# has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) returns False.\n"
        + "# The corrected function:\n"
        + problem.prompt
    )


def test_by_default_the_failure_is_shown_without_its_program(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, humaneval
):
    engine = ScriptedEngine(FALSE)
    sample, _ = refine(monkeypatch, checkpoint, tmp_path, engine, "--refine", 1)
    note = (
        "# An earlier version of this function was not correct. This test fails:\n"
        "# assert has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) == True\n"
        "# has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) returns False.\n"
    )
    assert engine.prompts[1].text == note + humaneval.problems[0].prompt
    assert [attempt.get("message", "") for attempt in sample["attempts"]] == ["", note]


def test_without_refinement_samples_have_no_attempts(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    sample, result = refine(monkeypatch, checkpoint, tmp_path, ScriptedEngine(FALSE))
    assert "attempts" not in sample
    assert "refine" not in result
    assert "refine" not in result["generation"]
    assert sorted(path.name for path in tmp_path.glob("score*")) == ["score.json", "score.samples.jsonl"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--refine", 1, "--rerank", "majority"), "--refine needs a prompt that shows tests, --rerank one that hides"),
        (("--refine", 1, "--protocol", "humaneval-codet-v1"), "shows no test of the humaneval problems"),
    ],
)
def test_what_excludes_refinement_is_named(tmp_path: Path, checkpoint: Path, more: tuple[object, ...], message: str):
    done = call("score", checkpoint, "--out", tmp_path, *more)
    assert done.exit_code == 1
    assert message in done.output


def test_the_page_shows_attempts_and_messages(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: ScriptedEngine(BROKEN, RIGHT))
    arguments = [argument for argument in ARGUMENTS if argument != "--no-html"]
    done = call("score", checkpoint, *arguments, "--out", tmp_path, "--refine", 1, *FORM)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "score.html").read_text()
    assert "attempt 1 of 2: 0 of 2 visible tests (NameError), 10 tokens" in page
    assert "raises NameError: name &#39;undefined&#39; is not defined." in page
    assert "attempt 2 of 2: 2 of 2 visible tests (pass), 10 tokens; the answer; ended: passed" in page
    assert "20 tokens were generated in all attempts, 10 of them in the first ones." in page


@pytest.mark.vllm
@pytest.mark.slow
def test_both_engines_refine_alike(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Answers of a random model: all fail, and are refined once, greedily, since engines sample differently."""
    pytest.importorskip("vllm")
    monkeypatch.setitem(LEAST_TEMPERATURES, "failure", 0.0)
    settings = ("--refine", 1, "--max-new-tokens", 12, "--dtype", "float32", "--limit", 3, "--no-html", "--workers", 1)
    attempts = {}
    for engine in ("transformers", "vllm"):
        out = tmp_path / engine
        done = call("score", checkpoint, *settings, "--engine", engine, "--out", out)
        assert done.exit_code == 0, done.output
        samples = map(json.loads, (out / "score.samples.jsonl").read_text().splitlines())
        attempts[engine] = {
            sample["task_id"]: [attempt["completion"] for attempt in sample["attempts"]] for sample in samples
        }
    assert attempts["vllm"] == attempts["transformers"]
    assert max(map(len, attempts["vllm"].values())) == 2


def test_a_deterministic_run_goes_on_with_the_same_attempts(tmp_path: Path, checkpoint: Path):
    """A real engine; of the second round one answer is left, so that its batch is generated again."""
    settings = ("--refine", 1, "--max-new-tokens", 8, "--limit", 3, "--no-html", "--workers", 1, "--out", tmp_path)
    samples = []
    for _ in range(2):
        done = call("score", checkpoint, *settings, "--deterministic", "--engine", "transformers")
        assert done.exit_code == 0, done.output
        samples.append(sorted((tmp_path / "score.samples.jsonl").read_text().splitlines()))
        (tmp_path / "score.samples.jsonl").unlink()
        second = tmp_path / "score.attempt1.jsonl"
        second.write_text(second.read_text().splitlines(keepends=True)[0])
    assert samples[0] == samples[1]
    assert max(len(json.loads(sample)["attempts"]) for sample in samples[0]) == 2

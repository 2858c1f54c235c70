"""Tests of scores with tools: samples, transcripts, result, page, resumption, and bad options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.generation.base import Answer, Prompt
from evalkit.generation.run import SampleTemplate
from evalkit.tasks.protocols import find
from evalkit.tools.base import tool_classes
from evalkit.tools.inline.prompts import tool_protocol
from evalkit.tools.inline.source import tool_sample
from tests.evalkit.commands import call
from tests.evalkit.generation.fake_engine import ReturnEngine
from tests.evalkit.tools.inline.toy_tools import TalkingEngine

RIGHT = """\
def has_close_elements(numbers, threshold):
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))
"""
ARGUMENTS = ("--tasks", "humaneval", "--limit", 1, "--workers", 1)


def by_results(*parts: str) -> TalkingEngine:
    def script(prompt: Prompt) -> str:
        answer = prompt.text.rpartition("Answer:\n")[2]
        return parts[min(answer.count("```output"), len(parts) - 1)]

    return TalkingEngine(script, ("\n```\n",))


def score(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, out: Path, engine: TalkingEngine, *more: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first sample and the result of a score with the Python tool."""
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: engine)
    done = call("score", checkpoint, *ARGUMENTS, "--tools", "python", "--out", out, *more)
    assert done.exit_code == 0, done.output
    first = (out / "score.samples.jsonl").read_text().splitlines()[0]
    return json.loads(first), json.loads((out / "score.json").read_text())


def test_a_model_runs_code_and_answers(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = by_results("```python\nx = 20\nx + 1\n```\n", "```python\nx * 2\n```\n", f"```python\n{RIGHT}```")
    sample, result = score(monkeypatch, checkpoint, tmp_path, engine)
    assert sample["solution"].strip() == RIGHT.strip()
    assert [call["result"] for call in sample["transcript"]] == ["21", "40"]
    assert [call["text"] for call in sample["transcript"]] == ["\nx = 20\nx + 1", "\nx * 2"]
    assert sample["raw"].startswith("```python\nx = 20\nx + 1\n```\n```output\n21\n```\n```python")
    assert sample["settings"]["protocol"] == "humaneval-evalplus-chat-v1+python"
    assert result["scores"]["humaneval"]["pass@1"] == 1
    counts = result["tools"]["humaneval"]
    assert counts == {
        "samples": 1,
        "samples_with_calls": 1,
        "calls": {"python": 2},
        "generated_tokens": sample["tokens"],
    }
    assert result["generation"]["tools"]["calls"] == 4
    assert result["protocol"]["humaneval"]["name"] == sample["settings"]["protocol"]
    assert result["protocol"]["humaneval"]["stop"][0] == "\n```\n"
    page = (tmp_path / "score.html").read_text()
    assert "1 of 1 answers called a tool: 2 calls of python" in page
    assert "call 2 of 2: python" in page
    assert "x * 2" in page


def test_a_program_that_is_only_in_a_call_counts(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = by_results(f"```python\n{RIGHT}\n```\n", "It works.")
    sample, result = score(monkeypatch, checkpoint, tmp_path, engine)
    assert sample["solution"].strip() == RIGHT.strip()
    assert result["scores"]["humaneval"]["pass@1"] == 1


def test_the_program_of_calls_is_what_the_interpreter_held(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    helper = "def close(a, b, threshold):\n    return False"
    wrong = "def has_close_elements(numbers, threshold):\n    return close(*numbers[:2], threshold)\n1 / 0"
    mended = "def close(a, b, threshold):\n    return abs(a - b) < threshold"
    last = "def has_close_elements(numbers, threshold):\n    pairs = ((a, b) for a in numbers for b in numbers)\n"
    last += "    return sum(close(a, b, threshold) for a, b in pairs) > len(numbers)"
    blocks = [f"```python\n{block}\n```\n" for block in (helper, wrong, "x = (", mended)]
    engine = by_results(*blocks, f"```python\n{last}\n```\n", "Done.")
    sample, result = score(monkeypatch, checkpoint, tmp_path, engine, "--tool-calls", 9)
    assert len(sample["transcript"]) == 5
    assert "x = (" not in sample["solution"]
    assert result["scores"]["humaneval"]["pass@1"] == 1


CLASS = "class Node:\n    pass"
FUNCTION = "def height(node):\n    return 0"


@pytest.mark.parametrize(
    ("text", "cells", "solution"),
    [
        (f"```python\n{CLASS}\n\n{FUNCTION}\n```", ("1",), f"{CLASS}\n\n{FUNCTION}\n"),
        ("It works.", (CLASS, FUNCTION, "height(Node())"), f"{CLASS}\n\n{FUNCTION}\n"),
        (f"```python\n{FUNCTION}\n```", (CLASS, "x = 1", FUNCTION), f"{CLASS}\n\n{FUNCTION}\n"),
        (f"```python\n{FUNCTION}\n```", (CLASS,), f"{FUNCTION}\n"),
    ],
    ids=["text", "calls", "the class in a call only", "no program has all"],
)
def test_a_program_of_several_names_is_whole(text: str, cells: tuple[str, ...], solution: str):
    protocol = tool_protocol(find("mbpp-chat-v1", task="mbpp"), tool_classes(("python",)))
    template = SampleTemplate(protocol=protocol, entry_points={"T/0": ("Node", "height")}, settings={}, run="r")
    answer = Answer(
        prompt=Prompt(task_id="T/0", index=0, text="", seed=0),
        completion=text,
        stop_reason="end",
        tokens=1,
        transcript=tuple({"tool": "python", "text": cell} for cell in cells),
    )
    assert tool_sample(template, answer).solution == solution


def test_an_answer_outside_of_calls_comes_first(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = "def has_close_elements(numbers, threshold):\n    return False\n"
    engine = by_results(f"```python\n{RIGHT}\n```\n", f"```python\n{wrong}```")
    sample, _ = score(monkeypatch, checkpoint, tmp_path, engine)
    assert sample["solution"].strip() == wrong.strip()


def test_half_a_program_at_the_end_does_not_replace_the_one_that_ran(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    half = "def has_close_elements(numbers, threshold):\n    'It ends here.'"
    engine = by_results(f"```python\n{RIGHT}\n```\n", f"Again:\n```python\n{half}")
    engine.last_reason = "length"
    sample, _ = score(monkeypatch, checkpoint, tmp_path, engine)
    assert sample["stop_reason"] == "length"
    assert sample["solution"].strip() == RIGHT.strip()


def test_the_opening_begins_a_call(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = by_results("print(3)\n```\n", RIGHT)
    sample, _ = score(monkeypatch, checkpoint, tmp_path, engine, "--tool-first")
    assert engine.prompts[0].text.endswith("First I use python:\n```python\n")
    assert sample["transcript"][0]["result"] == "3"
    assert sample["raw"].startswith("First I use python:\n```python\nprint(3)\n```\n```output\n3\n")


@pytest.mark.slow
def test_samples_are_reused_unless_a_setting_changes(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    engine = by_results("```python\n1\n```\n", RIGHT)
    score(monkeypatch, checkpoint, tmp_path, engine)
    before = (tmp_path / "score.samples.jsonl").read_text()
    score(monkeypatch, checkpoint, tmp_path, engine)
    assert len(engine.prompts) == 2
    assert (tmp_path / "score.samples.jsonl").read_text() == before
    score(monkeypatch, checkpoint, tmp_path, engine, "--tool-tokens", 100)
    assert len(engine.prompts) == 4
    score(monkeypatch, checkpoint, tmp_path, engine)
    assert len(engine.prompts) == 4


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    parts = ("```python\nx = 7\nx\n```\n", "```python\nx + 1\n```\n", f"```python\n{RIGHT}```")
    more = ("--n", 3, "--temperature", 0.8)
    score(monkeypatch, checkpoint, tmp_path / "whole", by_results(*parts), *more)
    interrupted = by_results(*parts)
    script = interrupted._script

    def until_the_first_sample_is_stored(prompt: Prompt) -> str:
        file = tmp_path / "cut" / "score.samples.jsonl"
        if file.exists() and file.stat().st_size:
            raise KeyboardInterrupt
        return script(prompt)

    interrupted._script = until_the_first_sample_is_stored
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: interrupted)
    done = call("score", checkpoint, *ARGUMENTS, "--tools", "python", "--out", tmp_path / "cut", *more)
    assert done.exit_code == 130, done.output
    rest = by_results(*parts)
    _, result = score(monkeypatch, checkpoint, tmp_path / "cut", rest, *more)
    assert result["scores"]["humaneval"]["pass@1"] == 1
    assert len(rest.prompts) == 6  # two of three samples, in three parts each

    def samples(folder: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (tmp_path / folder / "score.samples.jsonl").read_text().splitlines())
        for line in (items := sorted(lines, key=lambda line: line["index"])):
            for item in line["transcript"]:
                del item["seconds"]
        return items

    assert samples("cut") == samples("whole")
    assert [item["result"] for item in samples("cut")[0]["transcript"]] == ["7", "8"]


def test_the_model_is_shown_no_scoring_test(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, humaneval
):
    look = "```python\nimport sys, gc\n[v for v in gc.get_objects() if isinstance(v, str) and 'METADATA' in v]\n```\n"
    engine = by_results(look, RIGHT)
    sample, _ = score(monkeypatch, checkpoint, tmp_path, engine)
    assert sample["transcript"][0]["result"] == "[]"
    shown = "".join(prompt.text for prompt in engine.prompts)
    assert not any(line in shown for line in humaneval.problems[0].test.splitlines() if "assert" in line)


def test_a_model_that_calls_nothing_is_noted(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: by_results(RIGHT))
    done = call("score", checkpoint, *ARGUMENTS, "--tools", "python", "--out", tmp_path)
    assert "no answer called python" in done.output
    assert "--tool-first" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tools", "perl"), "tool 'perl' is unknown; expected one of python, docs"),
        (("--tools", "python", "--refine", 1), "--tools works neither with --refine nor with --rerank"),
        (("--tools", "python", "--tool-calls", 0), "0 is not in the range"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, checkpoint: Path, arguments: tuple[object, ...], message: str):
    done = call("score", checkpoint, *ARGUMENTS, "--out", tmp_path / "out", *arguments)
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_options_of_tools_have_no_effect_on_samples(tmp_path: Path):
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"task_id": "HumanEval/0", "completion": "    return 1"}\n')
    done = call("score", "--samples", samples, "--tools", "python")
    assert done.exit_code == 2
    assert "--tools: has no effect with --samples" in done.output


def test_without_tools_nothing_of_them_is_in_the_files(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evalkit.generation.run.load_engine", ReturnEngine)
    done = call("score", checkpoint, *ARGUMENTS, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    sample = json.loads((tmp_path / "score.samples.jsonl").read_text())
    assert not {"transcript", "attempts"} & set(sample)
    result = json.loads((tmp_path / "score.json").read_text())
    assert "tools" not in result
    assert "tools" not in result["generation"]

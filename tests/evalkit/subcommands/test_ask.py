"""Tests of `evalkit ask`: documentation in the prompt, calls of tools, and one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.generation.base import Prompt
from evalkit.tools.docs.tool import DocsTool
from tests.evalkit.commands import call
from tests.evalkit.tools.docs.toy_index import write_toy_index
from tests.evalkit.tools.inline.toy_tools import TalkingEngine


def test_documentation_begins_the_prompt(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TalkingEngine(lambda prompt: "area(corners)", ())
    monkeypatch.setattr("evalkit.tools.ask.load_engine", lambda *_: engine)
    done = call("ask", checkpoint, "shoelace formula", "--docs", write_toy_index(tmp_path), "--docs-top-k", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout == "documentation: shapes.area\nanswer (1 tokens):\narea(corners)\n"
    assert "# shapes.area(outline, *, unit='m')\n#     Return the surface" in engine.prompts[0].text
    assert engine.prompts[0].text.endswith("\n\nshoelace formula\n")


def test_a_model_searches_and_answers(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(prompt: Prompt) -> str:
        searched = "class shapes.Polygon(corners)" in prompt.text
        return "Polygon(corners)" if searched else f"closed outline{DocsTool.end}"

    engine = TalkingEngine(script, (DocsTool.end,))
    monkeypatch.setattr("evalkit.tools.ask.load_engine", lambda *_: engine)
    arguments = ("--docs", write_toy_index(tmp_path), "--tools", "docs", "--tool-first")
    done = call("ask", checkpoint, "Make a polygon.", *arguments)
    assert done.exit_code == 0, done.output
    assert "call of docs: closed outline\n" in done.stdout
    assert done.stdout.endswith("Polygon(corners)\n")


def test_a_real_engine_answers(tmp_path: Path, checkpoint: Path) -> None:
    index = write_toy_index(tmp_path)
    done = call("ask", checkpoint, "area", "--docs", index, "--docs-top-k", 1, "--max-new-tokens", 4)
    assert done.exit_code == 0, done.output
    assert "documentation: shapes.area\nanswer (4 tokens):\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--docs-top-k", 2), "documentation needs --docs INDEX"),
        (("--tools", "docs"), "documentation needs --docs INDEX"),
        (("--tools", "spell"), "tool 'spell' is unknown"),
        (("--docs", "absent.db"), "--docs has no effect"),
        (("--docs", "absent.db", "--docs-top-k", 1), "cannot be read"),
    ],
)
def test_errors_are_one_line(checkpoint: Path, arguments: tuple[object, ...], reason: str) -> None:
    done = call("ask", checkpoint, "area", *arguments)
    assert done.exit_code == 1
    assert reason in done.output

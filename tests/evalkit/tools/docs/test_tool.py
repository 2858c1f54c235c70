"""The search as a tool that a model calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tools.base import ToolContext, load_tools
from evalkit.tools.docs.tool import MAX_CHARS, DocsTool
from tests.evalkit.commands import call
from tests.evalkit.tools.docs.toy_index import write_toy_index
from tests.evalkit.tools.inline.toy_tools import TalkingEngine


@pytest.fixture
def tool(tmp_path: Path, pool: Pool) -> DocsTool:
    (built,) = load_tools(("docs",), ToolContext(pool=pool, docs=write_toy_index(tmp_path)))
    assert isinstance(built, DocsTool)
    return built


def test_a_call_gives_the_best_entries(tool: DocsTool, humaneval: Benchmark) -> None:
    session = tool.open(humaneval.problems[0])
    result = session.call("\n area \n")
    assert result.startswith("shapes.area(outline, *, unit='m')\n    Return the surface of a polygon.")
    assert session.call("`area`") == result
    assert len(result) <= MAX_CHARS
    session.close()
    session.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [("", "Write a name"), ("  \n", "Write a name"), ("zzzz", "Nothing matches"), ("\0" * 99, "Nothing matches")],
)
def test_what_is_wrong_with_a_call_is_said(tool: DocsTool, humaneval: Benchmark, text: str, answer: str) -> None:
    assert tool.open(humaneval.problems[0]).call(text).startswith(answer)


def test_the_record_has_the_digest_of_the_index(tool: DocsTool) -> None:
    record = tool.to_dict()
    assert len(record["sha256"]) == 64
    assert record["packages"] == [{"name": "shapes", "version": "1.2"}]


def test_without_an_index_there_is_no_tool(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"needs an index.*evalkit index-docs"):
        load_tools(("docs",), ToolContext(pool=pool))
    with pytest.raises(EvalError, match="cannot be read"):
        load_tools(("docs",), ToolContext(pool=pool, docs=tmp_path / "absent.db"))


def test_a_model_searches_and_goes_on(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("```docs\nsurface of a polygon\n```\n", "```python\ndef has_close_elements(a, b):\n    return True\n```")
    engine = TalkingEngine(
        lambda prompt: parts[prompt.text.rpartition("Answer:\n")[2].count("```output")], ("\n```\n",)
    )
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: engine)
    out, index = tmp_path / "out", write_toy_index(tmp_path)
    done = call("score", checkpoint, "--limit", 1, "--workers", 1, "--tools", "docs", "--docs", index, "--out", out)
    assert done.exit_code == 0, done.output
    sample = json.loads((out / "score.samples.jsonl").read_text())
    assert [(item["tool"], item["text"].strip()) for item in sample["transcript"]] == [("docs", "surface of a polygon")]
    assert "shapes.area(outline, *, unit='m')" in sample["transcript"][0]["result"]
    assert "shapes.area(outline" in (out / "score.html").read_text()
    result = json.loads((out / "score.json").read_text())
    assert result["generation"]["tools"]["docs"]["packages"] == [{"name": "shapes", "version": "1.2"}]

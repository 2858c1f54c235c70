"""Documentation in the prompt: what it is, what a result records, and that it changes nothing where it is off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.request import Request, RetrievalSettings
from evalkit.samples.base import SamplePlan
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.prompts import PromptText, with_documentation
from evalkit.tools.docs.retrieval import add_documentation
from tests.evalkit.commands import call
from tests.evalkit.generation.fake_engine import FixedAnswerEngine
from tests.evalkit.tools.docs.toy_index import write_toy_index


def problem(task_id: str, description: str, *pages: str) -> Problem:
    return Problem(
        task_id=task_id,
        prompt=f'def f():\n    """{description}"""\n',
        description=description,
        entry_points=("f",),
        prelude="",
        test="assert secret_test()",
        reference="secret_reference()",
        pages=pages,
    )


PROBLEMS = (
    problem("T/0", "Compute a surface by the shoelace formula.", "shapes.plane.area"),
    problem("T/1", "Load corners of an outline.", "shapes.io.readOutline", "shapes.Polygon"),
    problem("T/2", "zzzz"),
)


def plan(tmp_path: Path, checkpoint: Path, humaneval: Benchmark, *problems: Problem, **settings) -> SamplePlan:
    """Return the plan of these problems with documentation from the toy index."""
    index = write_toy_index(tmp_path)
    fields = {"top_k": 1, "tokens": 1000} | settings
    begun = SamplePlan(benchmark=replace(humaneval, problems=problems), problems=problems)
    return add_documentation(begun, RetrievalSettings(index=index, **fields), find_checkpoint(str(checkpoint)))


def test_each_problem_gets_the_entries_that_fit_it(tmp_path: Path, checkpoint: Path, humaneval: Benchmark) -> None:
    found = plan(tmp_path, checkpoint, humaneval, *PROBLEMS)
    assert found.documentation["T/0"].startswith("shapes.area(outline, *, unit='m')")
    assert found.documentation["T/1"].startswith("shapes.io.readOutline")
    assert found.documentation["T/2"] == ""
    assert not any("secret" in text for text in found.documentation.values())
    assert found.retrieval is not None
    assert found.retrieval["prompts"] == {"with_documentation": 2, "without": 1}
    recall = found.retrieval["recall"]
    assert (recall["problems"], recall["pages"]) == (2, 3)
    assert recall["recall@1"] == pytest.approx((1 + 0.5) / 2), "a page may have another public path in the index"


def test_the_oracle_gives_the_pages_that_are_needed(tmp_path: Path, checkpoint: Path, humaneval: Benchmark) -> None:
    found = plan(tmp_path, checkpoint, humaneval, *PROBLEMS[:2], oracle=True)
    assert "shapes.io.readOutline" in found.documentation["T/1"]
    assert "class shapes.Polygon(corners)" in found.documentation["T/1"]
    with pytest.raises(EvalError, match="T/2 names no page"):
        plan(tmp_path, checkpoint, humaneval, *PROBLEMS, oracle=True)
    with pytest.raises(EvalError, match=r"lacks shapes\.volume, which T/3 needs"):
        plan(tmp_path, checkpoint, humaneval, problem("T/3", "x", "shapes.volume"), oracle=True)


def test_the_budget_is_one_of_tokens(tmp_path: Path, checkpoint: Path, humaneval: Benchmark) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for tokens in (20, 40, 80):
        text = plan(tmp_path, checkpoint, humaneval, PROBLEMS[0], tokens=tokens, top_k=3).documentation["T/0"]
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= tokens


def test_documentation_is_a_comment_before_code_and_text_before_a_question() -> None:
    code = with_documentation(PromptText(text="def f():\n"), "a(x)\n    Do it.")
    assert code.text == (
        "# Documentation of functions and classes that may help:\n#\n# a(x)\n#     Do it.\n\ndef f():\n"
    )
    compile(f"{code.text}    pass", "program", "exec")
    chat = with_documentation(PromptText(text="```python\n", user="Write f."), "a(x)")
    assert chat.user == "Documentation of functions and classes that may help:\n\na(x)\n\nWrite f."
    assert chat.text == "```python\n"
    assert with_documentation(code, "") is code


def test_a_score_with_documentation(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine("    return True\n"))
    out, index = tmp_path / "out", write_toy_index(tmp_path)
    plain = ("score", checkpoint, "--limit", 1, "--workers", 1, "--no-html", "--out", out)
    samples = out / "score.samples.jsonl"
    assert call(*plain).exit_code == 0
    without = samples.read_bytes()
    assert "retrieval" not in json.loads((out / "score.json").read_text())
    done = call(*plain, "--docs", index, "--docs-top-k", 2)
    assert done.exit_code == 0, done.output
    prompt = json.loads(samples.read_text())["prompt"]
    assert prompt.startswith("# Documentation of functions and classes that may help:\n#\n# ")
    assert prompt.endswith(json.loads(without)["prompt"])
    record = json.loads((out / "score.json").read_text())["retrieval"]["humaneval"]
    assert (record["top_k"], record["tokens"], record["oracle"]) == (2, 1024, False)
    assert len(record["sha256"]) == 64
    assert call(*plain).exit_code == 0
    assert samples.read_bytes() == without, "a run without documentation has the digest that it had before"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"docs_top_k": 2}, "--docs-top-k needs --docs INDEX"),
        ({"docs_oracle": True}, "--docs-oracle needs --docs INDEX"),
        ({"tools": ("docs",)}, "--tools docs needs --docs INDEX"),
        ({"docs": Path("docs.db")}, "--docs has no effect without"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields: dict, reason: str) -> None:
    with pytest.raises(EvalError, match=reason):
        Request(checkpoint="model", result=Path("score.json"), **fields)


def test_a_damaged_index_ends_a_score_before_anything_is_written(tmp_path: Path, checkpoint: Path) -> None:
    index = tmp_path / "docs.db"
    index.write_text("no index")
    done = call("score", checkpoint, "--docs", index, "--docs-top-k", 2, "--out", tmp_path / "out", "--limit", 1)
    assert done.exit_code == 1
    assert "is not an index of documentation" in done.output
    assert not (tmp_path / "out" / "score.json").exists()

"""The benchmark with a search in its library's documentation, from the build to the score.

No counterpart: it runs the commands of `evalkit` in the order of docs/tools.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.tasks.private_api.benchmark import PrivateApiBuild
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.recall import measure_recall


@pytest.fixture(scope="module")
def index(default_build: PrivateApiBuild, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "docs.db"
    outcome = CliRunner().invoke(main, ["index-docs", f"{default_build.folder}/", "--out", str(out)])
    assert outcome.exit_code == 0, outcome.output
    return out


def score(checkpoint: Path, out: Path, *options: str) -> tuple[dict, list[dict]]:
    arguments = ["score", str(checkpoint), "--tasks", "private-api", "--out", str(out), "--engine", "transformers"]
    limits = ["--limit", "2", "--max-new-tokens", "8", "--workers", "1"]
    outcome = CliRunner().invoke(main, [*arguments, *limits, *options])
    assert outcome.exit_code == 0, outcome.output
    samples = (out / "score.samples.jsonl").read_text().splitlines()
    return json.loads((out / "score.json").read_text()), [json.loads(line) for line in samples]


@pytest.mark.slow
def test_a_model_searches_the_documentation_of_the_library(
    checkpoint: Path, index: Path, default_build: PrivateApiBuild, tmp_path: Path
) -> None:
    result, samples = score(checkpoint, tmp_path, "--tools", "docs", "--docs", str(index), "--tool-first")
    assert result["data"]["private-api"]["sha256"] == default_build.sha256
    calls = [call for sample in samples for call in sample["transcript"]]
    assert {call["tool"] for call in calls} <= {"docs"}
    assert result["library"]["private-api"]["samples"] == 2


@pytest.mark.slow
def test_pages_in_the_prompt_are_hits_or_those_of_the_reference(
    checkpoint: Path, index: Path, default_build: PrivateApiBuild, tmp_path: Path
) -> None:
    retrieved, _ = score(checkpoint, tmp_path / "hits", "--docs", str(index), "--docs-top-k", "2")
    recall = retrieved["retrieval"]["private-api"]["recall"]
    assert recall["problems"] == 2
    assert 0 <= recall["recall@1"] <= recall["recall@5"] <= 1
    result, samples = score(checkpoint, tmp_path / "pages", "--docs", str(index), "--docs-oracle")
    assert result["retrieval"]["private-api"]["oracle"] is True
    pages = {problem.task_id: problem.pages for problem in default_build.problems}
    for sample in samples:
        assert all(page in sample["prompt"] for page in pages[sample["task_id"]])


@pytest.mark.slow
def test_the_index_holds_every_page_that_a_problem_needs(index: Path, default_build: PrivateApiBuild) -> None:
    """And the search finds most of them with the task and its example."""
    with DocsIndex.open(index) as opened:
        assert [page for problem in default_build.problems for page in problem.pages if not opened.entry(page)] == []
        recall = measure_recall(
            default_build.problems, lambda problem, limit: [e.name for e in opened.search(problem.description, limit)]
        )
    assert recall is not None
    assert recall.recall[1] > 0.5
    assert recall.recall[5] > 0.8

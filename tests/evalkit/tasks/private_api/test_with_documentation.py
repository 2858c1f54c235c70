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

"""`evalkit train-verifier` from sample and test files to a folder that `evalkit rerank --verifier` uses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.evalkit.commands import call
from tests.evalkit.rerank.sample_runs import COMPLETIONS, TESTS, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples and tests of five problems, and `v/`: a verifier that was trained on all of them but HumanEval/53."""
    folder = tmp_path_factory.mktemp("verifier")
    write_rows(folder / "samples.jsonl", COMPLETIONS)
    write_rows(folder / "tests.jsonl", TESTS)
    seen = {task_id: texts for task_id, texts in COMPLETIONS.items() if task_id != "HumanEval/53"}
    write_rows(folder / "seen.jsonl", seen | {"HumanEval/34": ["    return sorted(set(l))\n", "    return l\n"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        done = call(
            "train-verifier", folder / "seen.jsonl", "--tests", folder / "tests.jsonl", "--tasks", "humaneval",
            "--out", folder / "v",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    (folder / "output.txt").write_text(done.output)
    return folder


@pytest.mark.slow
def test_the_report_has_the_measures(folder: Path) -> None:
    report = json.loads((folder / "v" / "report.json").read_text())
    quality = report["quality"]
    assert 0 <= quality["brier"] <= 1
    assert 0 <= quality["auc"] <= 1
    assert sum(item["samples"] for item in quality["reliability"]) == quality["samples"] == 26
    assert quality["tasks_with_right"] == 5
    assert report["measured_on"] == "folds of the training tasks"
    assert report["trained_on"] == {"benchmarks": ["humaneval"], "tasks": 5}
    assert min(report["model"]["log_loss"], key=report["model"]["log_loss"].get) == report["model"]["chosen"]
    output = (folder / "output.txt").read_text()
    for text in ("AUC", "Brier score", "first choice wrong in", "oracle", "report.json", "report.html"):
        assert text in output


@pytest.mark.slow
def test_the_page_shows_measures_and_the_reliability_picture(folder: Path) -> None:
    page = (folder / "v" / "report.html").read_text()
    assert "<svg" in page
    assert "first choice wrong though a right sample exists" in page
    assert json.loads((folder / "v" / "report.json").read_text())["model"]["chosen"] in page
    assert not re.search(r"""(href|src)=["']?http|<link|<script src""", page), "the page refers to no other file"


@pytest.mark.slow
def test_rerank_refuses_a_task_that_the_verifier_has_seen(folder: Path) -> None:
    done = call("rerank", folder / "samples.jsonl", "--tests", folder / "tests.jsonl", "--verifier", folder / "v")
    assert done.exit_code == 1
    assert "the verifier was trained on HumanEval/23, HumanEval/28, HumanEval/35, HumanEval/45, which" in done.output
    assert not (folder / "samples.rerank.json").exists()


def test_rerank_on_another_task_has_the_method_verifier(folder: Path) -> None:
    samples = write_rows(folder / "new.jsonl", {"HumanEval/53": COMPLETIONS["HumanEval/53"]})
    done = call("rerank", samples, "--tests", folder / "tests.jsonl", "--verifier", folder / "v")
    assert done.exit_code == 0, done.output
    result = json.loads((folder / "new.rerank.json").read_text())
    assert result["scores"]["verifier"]["pass@1"] == 1.0
    assert result["verifier"]["trained_on"] == ["humaneval"]
    assert "verifier" in done.output


def failure(*args: object) -> str:
    """Return the one line of an error."""
    done = call(*args)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("evalkit: ")]
    return line


def test_wrong_uses_are_one_line(folder: Path) -> None:
    samples, tests = folder / "samples.jsonl", folder / "tests.jsonl"
    missing = failure("rerank", samples, "--tests", tests, "--methods", "verifier")
    assert "--methods: verifier needs a trained one; run 'evalkit rerank --verifier FOLDER'" in missing
    assert "--verifier: needs model-written tests" in failure("rerank", samples, "--verifier", folder / "v")
    assert "verifier.json: cannot be read (No such file" in failure(
        "rerank", samples, "--tests", tests, "--verifier", folder
    )
    train = ("train-verifier", samples, "--tests", tests, "--out", folder / "w", "--tasks")
    assert "occurs twice; expected benchmarks" in failure(*train, "humaneval", "--validation", "humaneval")
    assert "task 'x' is unknown" in failure(*train, "x")
    wrong = write_rows(folder / "wrong.jsonl", {"HumanEval/53": ["    return 1\n", "    return 2\n"]})
    line = failure("train-verifier", wrong, "--tests", tests, "--out", folder / "w", "--tasks", "humaneval")
    assert "every program of the 1 training tasks is wrong; expected right and wrong ones" in line
    assert not (folder / "w" / "verifier.json").exists()

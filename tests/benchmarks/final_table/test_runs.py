"""Tests of joining the figures of several runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from benchmarks import _common
from benchmarks.final_table import __main__ as command
from benchmarks.final_table.__main__ import all_jobs
from benchmarks.final_table.jobs import Setup
from benchmarks.final_table.page import BEGIN, text
from benchmarks.final_table.runs import collect, join, mark
from tests.benchmarks.final_table.scratch import write_all, write_model


@pytest.fixture
def runs(setup: Setup, tmp_path: Path) -> list[dict[str, Any]]:
    """Figures of a folder with one model, and of one with all."""
    few, every = replace(setup, scratch=tmp_path / "few"), replace(setup, scratch=tmp_path / "every")
    write_model(few.scratch, "base", greedy=[1, 1, 1, 1], sampled=[1, 0, 0, 0])
    write_all(every)
    return [collect(each, all_jobs(each), recipe=f"{each.scratch.name}.toml") for each in (few, every)]


def test_the_first_run_that_has_a_figure_gives_it(runs: list[dict[str, Any]]) -> None:
    few, every = runs
    found = join(runs)
    assert found["rows"]["base"]["mbpp greedy"] == few["rows"]["base"]["mbpp greedy"] | {"run": 1}
    assert found["rows"]["kd"]["mbpp greedy"] == every["rows"]["kd"]["mbpp greedy"] | {"run": 2}
    assert found["best"] == every["best"]
    assert found["spent"]["kd"] == every["spent"]["kd"]
    assert [run["recipe"] for run in found["runs"]] == ["few.toml", "every.toml"]
    cells = {key: set(row) for key, row in found["rows"].items()}
    assert cells == {key: set(row) | set(few["rows"][key]) for key, row in every["rows"].items()}


def test_differences_stay_those_of_their_run(runs: list[dict[str, Any]]) -> None:
    kd = join(runs)["rows"]["kd"]["mbpp greedy"]
    assert kd["over base"]["mean"] == 0.625  # base of its own run solves nothing, that of the first run everything


def test_figures_of_later_runs_are_marked(setup: Setup, runs: list[dict[str, Any]]) -> None:
    shown = text(setup, join(runs), command="the command", picture="table.png")
    lines = {line.split(" | ")[0].strip("| "): line for line in shown.partition("## Scores")[2].splitlines()[::-1]}
    assert "²" not in lines["student as it is"].partition(" | ")[2].split(" | ")[0]
    assert "62.5 [25.0, 100.0]²" in lines["KD on the teacher's responses"]
    assert "of run 2, `recipes/every.toml`, are finished. Its figures have the mark ², and hollow points" in shown
    assert "| responses² |" in shown


def test_one_run_has_no_marks(setup: Setup, runs: list[dict[str, Any]]) -> None:
    assert "²" not in text(setup, runs[1], command="the command", picture="table.png")
    assert join(runs[1:])["rows"]["kd"]["mbpp greedy"] == runs[1]["rows"]["kd"]["mbpp greedy"] | {"run": 1}


def test_marks_are_superscripts_from_the_second_run_on() -> None:
    assert [mark(number) for number in (1, 2, 9, 12)] == ["", "²", "⁹", "¹²"]


def test_a_page_is_written_from_figures_alone(
    recipe_file: Path, runs: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(2)]
    for path, run in zip(paths, runs, strict=True):
        path.write_text(json.dumps(run))
    out = tmp_path / "all.json"
    arguments = ["final_table", str(recipe_file), "--page", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--join", *map(str, paths)])
    command.main()
    assert json.loads(out.read_bytes()) == join(runs)
    assert not out.with_suffix(".md").exists()


def test_a_file_without_figures_is_refused(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.json").write_text("{}")
    arguments = ["final_table", str(recipe_file), "--page", "--join", str(tmp_path / "no.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"^error: --join .*no.json: has no figures; expected a JSON file"):
        command.main()


def test_a_file_without_figures_is_refused_before_a_stage_runs(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "final_table",
        str(recipe_file),
        "--scratch",
        str(tmp_path / "new"),
        "--join",
        str(tmp_path / "no.json"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(command, "run_stages", lambda *_, **__: pytest.fail("a stage ran"))
    with pytest.raises(SystemExit, match=r"^error: --join .*no.json: has no figures"):
        command.main()


def test_a_run_without_a_folder_is_refused(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["final_table", str(recipe_file)])
    with pytest.raises(SystemExit):
        command.main()
    assert "--scratch is missing; name a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_of_the_small_pair_is_that_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_common.ROOT)
    shown = Path("docs/results/final_table.md")
    page, readme = tmp_path / shown.name, tmp_path / "README.md"
    copyfile(shown, page)
    copyfile("README.md", readme)
    written = shown.read_text().partition(BEGIN)[2].partition("python -m ")[2].partition("\n")[0].split()
    monkeypatch.setattr(sys, "argv", [*written, "--out", str(page), "--short", str(readme)])
    command.main()
    assert page.read_text() == shown.read_text()
    assert page.with_suffix(".json").read_text() == shown.with_suffix(".json").read_text()
    assert readme.read_text() == Path("README.md").read_text()

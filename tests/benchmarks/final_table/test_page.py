"""Tests of the page on made-up results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.final_table import __main__ as command
from benchmarks.final_table.__main__ import all_jobs
from benchmarks.final_table.jobs import Setup
from benchmarks.final_table.page import BEGIN, NOT_RUN, cell, text
from benchmarks.final_table.recipe import read_recipe
from benchmarks.final_table.runs import collect
from benchmarks.final_table.short import write_short
from benchmarks.final_table.tables import Column, Row, rows, table
from tests.benchmarks.final_table.scratch import write_all, write_choices, write_model


@pytest.fixture
def full(setup: Setup) -> Setup:
    write_all(setup)
    return setup


def page(setup: Setup) -> str:
    return text(setup, figures(setup), command="the command", picture="table.png")


def figures(setup: Setup) -> dict[str, Any]:
    return collect(setup, all_jobs(setup), recipe="small.toml")


def cells(page_text: str, section: str, title: str) -> list[str]:
    """Return the cells of the row with a title, in a section of the page."""
    part = page_text[page_text.index(f"## {section}") :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_are_those_of_the_table_in_its_order(setup: Setup) -> None:
    assert [row.key for row in rows(setup)] == [
        "base",
        "sft",
        "kd",
        "best",
        "best + majority",
        "best + verifier",
        "best + samples of equal tokens",
        "best + refinement",
        "self",
        "teacher",
        "teacher + majority",
        "teacher + verifier",
    ]


def test_figures_are_means_over_seeds_with_paired_differences(full: Setup) -> None:
    found = table(full)
    kd = found["kd"]["mbpp greedy"]
    assert (kd["mean"], kd["seeds"], kd["units"]) == (0.625, 2, 4)
    assert kd["over above"]["row"] == "sft"
    assert kd["over above"]["mean"] == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert kd["over base"]["mean"] == 0.625
    assert found["kd"]["mbpp pass@1"]["mean"] == pytest.approx(0.15)
    assert found["kd"]["mbpp pass@10"]["mean"] == 0.5
    assert found["best"]["mbpp greedy"]["mean"] == 0.625
    chosen = found["best + majority"]["mbpp pass@1"]
    assert chosen["mean"] == pytest.approx(0.375)
    assert chosen["over above"] == chosen["over above"] | {"row": "best", "mean": pytest.approx(0.225)}


def test_refinement_is_compared_at_equal_tokens(full: Setup) -> None:
    found = table(full)
    assert found["best + refinement"]["mbpp greedy"]["mean"] == 0.5
    assert found["best + samples of equal tokens"]["mbpp greedy"]["mean"] == 0.25
    assert found["best + refinement"]["mbpp greedy"]["over above"]["row"] == "best + samples of equal tokens"


def test_bits_per_byte_are_ratios_of_sums(full: Setup) -> None:
    bits = table(full)["kd"]["bits_per_byte responses"]
    assert bits["mean"] == pytest.approx((10.0 + 10.5) / 0.6931471805599453 / 80)
    assert bits["over base"]["mean"] == pytest.approx((20.5 - 80.0) / 0.6931471805599453 / 80)


def test_held_out_measures_are_those_that_the_tokenizers_allow(full: Setup) -> None:
    found = table(full)["kd"]
    assert found["chunk_kl responses"]["mean"] == pytest.approx(20.5 / 2 / 10)
    assert found["cell_kl responses"]["over above"]["mean"] == pytest.approx((20.5 - 30.0) / 4 / 16)
    assert "kl responses" not in found
    shown = page(full)
    row = cells(shown, "Held-out text", "KD on the teacher's responses")
    assert [cell.partition(" ")[0] for cell in row[1:]] == ["0.3697", "1.0250", "0.3203"]
    assert "KL in nats per token" not in shown
    step = cells(shown[shown.index("### Responses") :].replace("Over the model above:", "## Step"), "Step",
                 "KD on the teacher's responses")  # fmt: skip
    assert step[1] == "SFT on the teacher's responses"
    assert step[3].startswith("-0.4750 [")


def test_the_share_of_answers_that_end_is_of_greedy_ones(full: Setup) -> None:
    assert table(full)["kd"]["mbpp ends"]["mean"] == 0.75
    assert cells(page(full), "Answers that end", "teacher")[1].startswith("75.0 [")


def test_the_page_shows_every_row_and_says_what_is_not_run(full: Setup) -> None:
    shown = page(full)
    assert cells(shown, "Scores", "KD on the teacher's responses")[1].startswith("62.5 [")
    assert cells(shown, "Scores", "SFT on the student's own passing samples, no teacher")[1:] == [NOT_RUN] * 7
    verifier = cells(shown, "Scores", "best + `verifier`")
    assert [verifier[number] for number in (3, 6)] == [NOT_RUN] * 2
    assert verifier[1] == ""
    published = cells(shown, "Scores", "*A model: published, not run here* (a paper)")
    assert published[1:] == ["*12.5*", *[""] * 6]
    assert cells(shown, "Costs", "KD on the teacher's responses")[1:] == ["200", "30 s", "2 min", "2.0 MB"]
    assert "*Best of these* is `kd`" in shown
    assert "prompt of humaneval/7: 30%" in shown


def test_the_short_form_has_models_and_the_last_selector(full: Setup, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# A\n\n<!-- final table -->\nold\n<!-- /final table -->\n\n## B\n")
    write_short(full, figures(full), readme)
    shown = readme.read_text()
    assert "old" not in shown
    assert shown.startswith("# A\n")
    assert shown.endswith("## B\n")
    table_rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("|")]
    assert [row[0] for row in table_rows[2:]] == [
        "student as it is",
        "SFT on the teacher's responses",
        "KD on the teacher's responses",
        "best of these",
        "best + `verifier`",
        "SFT on the student's own passing samples, no teacher",
        "teacher",
        "teacher + `verifier`",
    ]
    assert table_rows[0][-1] == "KL of cells in nats on held-out responses"
    assert table_rows[4][1].startswith("62.5 [")
    assert table_rows[4][-1].startswith("0.3203 [")


def test_a_figure_of_some_seeds_says_so() -> None:
    row, column = Row(key="kd", title="KD", names=("kd-0", "kd-1")), Column(key="humaneval greedy", title="HumanEval")
    entry = {"mean": 0.5, "low": 0.25, "high": 0.75, "seeds": 1}
    assert cell(entry, row, column) == "50.0 [25.0, 75.0] (1 of 2 seeds)"
    assert cell(entry | {"seeds": 2}, row, column) == "50.0 [25.0, 75.0]"


def test_differences_are_bold_where_the_interval_excludes_zero(full: Setup) -> None:
    shown = page(full)
    step = cells(shown, "What each step adds", "SFT on the teacher's responses")
    assert step[1:3] == ["student as it is", "+25.0 [+0.0, +75.0]"]
    teacher = cells(shown, "What each step adds", "teacher")
    assert teacher[1] == "best of these"
    assert teacher[4] == "**+72.5 [+55.0, +90.0]**"
    part = shown[shown.index("Choices over the model alone") :]
    assert "| teacher + `majority` | teacher |  |  | not run |  |  | +12.5 [+0.0, +37.5] |  |" in part


def test_a_recipe_without_arms_compares_student_and_teacher(recipe_file: Path, tmp_path: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace('arms = ["sft", "kd", "self"]', "arms = []"))
    bare = Setup(recipe=read_recipe(recipe_file), scratch=tmp_path / "bare")
    assert [row.key for row in rows(bare)][:3] == ["base", "student + majority", "student + verifier"]
    names = {job.stage.name for job in all_jobs(bare)}
    assert {"base-mbpp-choices", "teacher-mbpp-choices", "refine-base-mbpp-failure"} <= names
    assert not [name for name in names if name.startswith(("best", "record", "nearest"))]
    write_model(bare.scratch, "base", greedy=[0, 0, 0, 1], sampled=[1, 0, 0, 0])
    write_choices(bare.scratch, "base", "mbpp", "majority", [1.0, 0.0, 0.0, 0.0])
    entry = table(bare)["student + majority"]["mbpp pass@1"]
    assert entry["over model"] == entry["over model"] | {"row": "base", "mean": pytest.approx(0.225)}


def test_a_recipe_without_samples_and_choices_says_nothing_of_them(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text().replace('["majority", "verifier"]', "[]").replace("samples = 10", "samples = 0")
    recipe_file.write_text(text.replace("refinements = 1", "refinements = 0"))
    greedy = Setup(recipe=read_recipe(recipe_file), scratch=tmp_path / "greedy")
    assert [row.key for row in rows(greedy)] == ["base", "sft", "kd", "self", "teacher"]
    assert not [job.stage.name for job in all_jobs(greedy) if job.stage.name.startswith("best")]
    assert not [job.stage.name for job in all_jobs(greedy) if job.stage.name.endswith(("samples", "validation"))]
    write_all(greedy)
    shown = page(greedy)
    assert not [word for word in ("samples each", "Selectors", "Choices", "Best of these") if word in shown]
    assert cells(shown, "Scores", "KD on the teacher's responses")[1].startswith("62.5 [")


def test_a_problem_that_the_machine_failed_to_execute_is_left_out(full: Setup) -> None:
    path = full.scratch / "scores" / "sft-0-mbpp-greedy.json"
    result = json.loads(path.read_bytes())
    result["tasks"]["Mbpp/3"][0]["outcome"] = "infra_error"
    path.write_text(json.dumps(result))
    entry = table(full)["sft"]["mbpp greedy"]
    assert entry["units"] == 3
    assert "over base" not in entry


def test_an_empty_folder_gives_a_page_on_which_nothing_is_run(setup: Setup) -> None:
    shown = page(setup)
    assert f"0 of {len(all_jobs(setup))} stages are finished" in shown
    assert cells(shown, "Scores", "teacher")[1:] == [NOT_RUN] * 7


@pytest.mark.slow
def test_a_second_run_of_the_command_changes_nothing(
    full: Setup, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page" / "table.md"
    arguments = ["final_table", str(recipe_file), "--scratch", str(full.scratch), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()
    out.write_text(out.read_text().replace(BEGIN, f"Conclusions by hand.\n\n{BEGIN}"))
    before = {path: path.read_bytes() for path in [*out.parent.iterdir(), *full.scratch.rglob("*.json")]}
    assert {path.suffix for path in out.parent.iterdir()} == {".md", ".json", ".png"}
    command.main()
    assert before == {path: path.read_bytes() for path in [*out.parent.iterdir(), *full.scratch.rglob("*.json")]}


def test_a_wrong_recipe_ends_with_one_line(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["final_table", str(recipe_file), "--scratch", "x", "--set", "teacher"])
    with pytest.raises(SystemExit, match=r"^error: --set teacher: expected PLACE=VALUE"):
        command.main()

"""Tests of the dry run: rates, sums, and the page that holds those of the flagship recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import _common
from benchmarks._common import ROOT
from benchmarks.final_table.__main__ import all_jobs
from benchmarks.final_table.costs import CostModel, dry_run
from benchmarks.final_table.jobs import Job, Setup
from benchmarks.final_table.reading import RecipeError
from benchmarks.final_table.recipe import read_recipe

FLAGSHIPS = ("codellama-70b-phi-2", "codellama-70b-tinyllama", "deepseek-coder-1.3b-replication")


def job(setup: Setup, name: str) -> Job:
    return next(job for job in all_jobs(setup) if job.stage.name == name)


def finish(job: Job, scratch: Path, seconds: float) -> None:
    mark = {"arguments": list(job.stage.arguments), "seconds": seconds, "provenance": "made up"}
    _common.write_json(scratch / "marks" / f"{job.stage.name}.json", mark)


def seconds(setup: Setup, name: str) -> float:
    return sum(cost.seconds for cost in CostModel(setup, all_jobs(setup)).costs(job(setup, name)))


def test_costs_follow_from_the_rates_of_the_recipe(setup: Setup) -> None:
    assert seconds(setup, "write-mbpp") == 10 * 2 * 100 / 5
    assert seconds(setup, "write-self-written") == 10 * 2 * 100 / 10
    assert seconds(setup, "record-responses") == 10 * 2 * (200 + 100) / 100
    assert seconds(setup, "sft-0") == 4 * 50 / 20
    assert seconds(setup, "base-humaneval-greedy") == 4 * 100 / 10 + 4 / 2


def test_finished_stages_give_the_rates_of_the_others(setup: Setup) -> None:
    finish(job(setup, "sft-0"), setup.scratch, 50.0)
    assert seconds(setup, "sft-0") == 50
    assert seconds(setup, "kd-1") == 50
    finish(job(setup, "base-humaneval-greedy"), setup.scratch, 8.0)  # execution is a part of it
    assert seconds(setup, "kd-1-mbpp-greedy") == 8
    text = "\n".join(dry_run(setup, all_jobs(setup), summary=False))
    assert "measured here: sft-0" in text
    assert "    done in 50 s" in text


def test_the_time_of_a_stage_that_ran_elsewhere_is_no_rate(setup: Setup) -> None:
    finish(job(setup, "write-mbpp"), setup.scratch, 0.0)
    assert seconds(setup, "write-mbpp") == 0
    assert seconds(setup, "teacher-mbpp-greedy") == 4 * 100 / 5 + 4 / 2


def test_a_missing_rate_and_a_missing_shape_are_named(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace("train = 20, ", ""))
    setup = Setup(recipe=read_recipe(recipe_file), scratch=tmp_path / "none")
    with pytest.raises(RecipeError, match=r"rates.tokens_per_s: has neither 'train student' nor 'train'"):
        list(dry_run(setup, all_jobs(setup), summary=True))
    recipe_file.write_text(text.replace("[rates]", '[rates]\nmachine = "1xH100"').replace("teacher-folder", "org/none"))
    setup = Setup(recipe=read_recipe(recipe_file), scratch=tmp_path / "none")
    with pytest.raises(RecipeError, match=r"teacher.parameters: is missing"):
        list(dry_run(setup, all_jobs(setup), summary=True))


def test_a_dry_run_prints_every_command_and_writes_nothing(setup: Setup) -> None:
    lines = list(dry_run(setup, all_jobs(setup), summary=False))
    for item in all_jobs(setup):
        assert f"{item.stage.name}: {item.stage.shown()}" in lines
    assert not setup.scratch.exists()


@pytest.mark.parametrize("name", FLAGSHIPS)
def test_the_documentation_has_the_dry_run_of_each_flagship(name: str) -> None:
    setup = Setup(recipe=read_recipe(ROOT / "recipes" / f"{name}.toml"), scratch=Path("DIR"))
    shown = "\n".join(f"    {line}".rstrip() for line in dry_run(setup, all_jobs(setup), summary=True))
    page = (ROOT / "docs" / "final_table.md").read_text()
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    assert page[page.index(begin) + len(begin) : page.index(end)] == shown


def test_recording_of_the_flagship_costs_what_the_plan_of_teacher_dump_says() -> None:
    from teacher_dump.config import DumpConfig
    from teacher_dump.cost import estimate

    setup = Setup(recipe=read_recipe(ROOT / "recipes" / f"{FLAGSHIPS[0]}.toml"), scratch=Path("DIR"))
    tokens = setup.recipe.budgets.source_tokens
    config = DumpConfig(model="codellama-70b", out=Path("DIR"), data=setup.recipe.data.source, max_tokens=tokens)
    plan = estimate(config, "8xH100")
    (cost,) = CostModel(setup, all_jobs(setup)).costs(job(setup, "record-source"))
    assert cost.gpu_hours == pytest.approx(plan["gpu_hours"], abs=0.1)
    assert cost.work.num_bytes == plan["bytes"]

"""Tests of the stages: the commands parse, the order follows from what they read, and a second run runs nothing."""

from __future__ import annotations

import copy
import importlib.util
import json
import random
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from benchmarks import _common, _stages
from benchmarks._stages import Stage, run_stages
from benchmarks.final_table.__main__ import all_jobs, keep_settings
from benchmarks.final_table.jobs import Setup
from benchmarks.final_table.reading import RecipeError
from benchmarks.final_table.recipe import read_recipe
from tests.benchmarks.final_table.test_recipe import RECIPES

PROGRAMS = {"teacher_dump": "teacher-dump", "student_train": "student-train", "evalkit": "evalkit"}


def stages(setup: Setup) -> list[Stage]:
    return [job.stage for job in all_jobs(setup)]


def parse(stage: Stage) -> None:
    """Parse the command line of a stage as its program does, without running it."""
    from scripts.cli_reference import COMMANDS

    command, arguments = COMMANDS[PROGRAMS[stage.module]], list(stage.arguments)
    if isinstance(command, click.Group):
        subcommand = command.get_command(click.Context(command), arguments.pop(0))
        assert subcommand is not None, stage.shown()
        command = subcommand
    command = copy.copy(command)  # it keeps its help option, which this context gives other names
    parser = command.make_parser(click.Context(command))
    values, left, _ = parser.parse_args(arguments)
    assert not [text for text in left if text.startswith("-")], stage.shown()
    for parameter in command.params:
        if isinstance(parameter, click.Option) and isinstance(parameter.type, click.Choice):
            given = values.get(parameter.name or "")
            assert given is None or given in parameter.type.choices, stage.shown()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_command_of_a_recipe_parses(path: Path) -> None:
    found = stages(Setup(recipe=read_recipe(path), scratch=Path("scratch")))
    assert len({stage.name for stage in found}) == len(found)
    for stage in found:
        if stage.module in PROGRAMS:
            parse(stage)
            continue
        spec = importlib.util.find_spec(stage.module)
        assert spec is not None
        assert spec.origin is not None, stage.module
        source = Path(spec.origin).read_text()
        assert not [text for text in stage.arguments if text.startswith("--") and f'"{text}"' not in source]


def test_a_renamed_option_is_found(setup: Setup) -> None:
    first = stages(setup)[0]
    with pytest.raises(click.NoSuchOption):
        parse(Stage(name="x", module=first.module, arguments=(*first.arguments, "--no-such-option", "1")))


def stem(path: str) -> str:
    return path.removesuffix(".json").removesuffix(".jsonl")


def outputs(stage: Stage) -> list[str]:
    """Return the folders and files that a stage writes."""
    if stage.name == "join":
        return [stage.arguments[-1]]
    pairs = zip(stage.arguments, stage.arguments[1:], strict=False)
    return [value for option, value in pairs if option in ("--out", "--json")]


def reads(stage: Stage, writers: dict[str, str]) -> set[str]:
    """Return the stages whose files a command names."""
    found: set[str] = set()
    for argument in set(stage.arguments) - set(outputs(stage)):
        if not argument.startswith("scratch/"):
            continue
        if "/best-" in argument and not argument.startswith("scratch/tests/"):
            found.add("best")
        found |= {
            writer
            for output, writer in writers.items()
            if argument == output or argument.startswith((f"{output}/", f"{stem(output)}."))
        }
    return found


def needed(stage: Stage, by_name: dict[str, Stage]) -> set[str]:
    found: set[str] = set()
    names = list(stage.needs)
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names += by_name[name].needs
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_stage_needs_all_stages_whose_files_it_reads(path: Path) -> None:
    found = stages(Setup(recipe=read_recipe(path), scratch=Path("scratch")))
    by_name = {stage.name: stage for stage in found}
    writers = {output: stage.name for stage in found for output in outputs(stage)}
    checked = 0
    for stage in found:
        missing = reads(stage, writers) - needed(stage, by_name) - {stage.name}
        checked += bool(reads(stage, writers))
        assert not missing, stage.shown()
    assert checked > len(found) / 2


def fake_run(order: list[str]) -> object:
    """Return a `run_stage` that notes the stage and writes its mark."""

    def run(stage: Stage, scratch: Path) -> bool:
        order.append(stage.name)
        mark = {"arguments": list(stage.arguments), "seconds": 1.0, "provenance": "made up"}
        _common.write_json(scratch / "marks" / f"{stage.name}.json", mark)
        return True

    return run


@pytest.mark.parametrize("seed", range(3))
def test_stages_run_once_in_any_order_and_after_what_they_need(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    order: list[str] = []
    monkeypatch.setattr(_stages, "run_stage", fake_run(order))
    found = stages(setup)
    by_name = {stage.name: stage for stage in found}
    shuffled: Sequence[Stage] = random.Random(seed).sample(found, len(found))
    assert run_stages(shuffled, setup.scratch, jobs=1) == []
    assert sorted(order) == sorted(by_name)
    assert all(set(by_name[name].needs) <= set(order[:place]) for place, name in enumerate(order))
    assert run_stages(found, setup.scratch, jobs=1) == []
    assert len(order) == len(found)


def test_only_runs_the_named_stages(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(_stages, "run_stage", fake_run(order))
    assert run_stages(stages(setup), setup.scratch, jobs=1, only=["base-mbpp", "write-mbpp"]) == []
    assert sorted(order) == ["base-mbpp-greedy", "base-mbpp-samples", "write-mbpp"]


def test_a_folder_belongs_to_one_recipe(setup: Setup, recipe_file: Path) -> None:
    keep_settings(setup)
    keep_settings(setup)
    recipe_file.write_text(recipe_file.read_text().replace("steps = 4", "steps = 5", 1).replace("= 12.5", "= 13.5"))
    with pytest.raises(RecipeError, match=r"has results with budgets.steps = 4, the recipe has 5"):
        keep_settings(Setup(recipe=read_recipe(recipe_file), scratch=setup.scratch))


def test_a_setting_that_the_folder_does_not_know_is_added(setup: Setup) -> None:
    keep_settings(setup)
    path = setup.scratch / "recipe.json"
    settings = json.loads(path.read_bytes())
    older = {key: value for key, value in settings.items() if key != "selection.refinement_form"}
    _common.write_json(path, older)
    keep_settings(setup)
    assert json.loads(path.read_bytes()) == settings


def test_a_shortened_student_is_made_once_and_begins_every_arm(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text().replace('"student-folder"', '"whole-folder"\nkept_layers = 2')
    recipe_file.write_text(text.replace('["sft", "kd", "self"]', '["sft-source", "kd", "self"]'))
    found = {stage.name: stage for stage in stages(Setup(recipe=read_recipe(recipe_file), scratch=tmp_path))}
    short = str(tmp_path / "runs" / "base")
    readers = {name for name, stage in found.items() if short in stage.arguments} - {"base"}
    assert {"sft-source-0", "kd-1", "self-0", "write-self-written", "base-mbpp-greedy"} <= readers
    assert all("base" in needed(found[name], found) for name in readers)
    assert [name for name, stage in found.items() if "whole-folder" in stage.arguments] == ["base"]
    assert found["base"].needs == ("record-source",)
    assert "--student-layers 2" in found["base"].shown()
    assert "--learning-rate 0 " in found["base"].shown()


def test_every_cache_is_decontaminated(setup: Setup) -> None:
    dumps = [stage for stage in stages(setup) if stage.module == "teacher_dump"]
    assert dumps
    assert all("humaneval,mbpp=mbpp.jsonl" in stage.arguments for stage in dumps)

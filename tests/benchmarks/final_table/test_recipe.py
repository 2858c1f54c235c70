"""Tests of recipes: each error names the path of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._common import ROOT
from benchmarks.final_table.reading import RecipeError
from benchmarks.final_table.recipe import read_recipe

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
CHANGES = [
    ("steps = 4", "stepps = 4", "small.toml: budgets.stepps: is no key"),
    ("\nsteps = 4", "", "small.toml: budgets.steps: is missing"),
    ("steps = 4", 'steps = "4"', "small.toml: budgets.steps: found '4', expected a whole number"),
    ("steps = 4", "steps = true", "small.toml: budgets.steps: found True, expected a whole number"),
    ("steps = 4", "steps = 1", "small.toml: budgets.steps: found 1, expected at least 2"),
    ("samples = 10", "samples = 9", "small.toml: selection.samples: found 9, expected at least 10"),
    ('["majority", "verifier"]\nsamples = 10', "[]\nsamples = 9", "found 9, expected 0 or at least 10"),
    ("samples = 10", "samples = 0", "small.toml: selection.samples: found 0, expected at least 10"),
    ('"student-folder"', '"student-folder"\nkept_layers = 2', "student.kept_layers: needs source text; add sft-source"),
    ('arms = ["sft", "kd", "self"]', 'arms = ["sft", "kt"]', "small.toml: arms: found 'kt', expected of sft-source"),
    ('arms = ["sft", "kd", "self"]', 'arms = ["sft", "sft"]', "small.toml: arms: found a name twice"),
    ('["majority", "verifier"]', '["majority", 1]', "small.toml: selection.selectors[1]: found 1, expected a text"),
    ("seeds = [0, 1]", "seeds = []", "small.toml: seeds: found [], expected at least one"),
    ("[benchmarks.mbpp]", "[benchmarks.apps]", "small.toml: benchmarks: found 'apps'"),
    ("micro_tokens = 50", "micro_tokens = 51", "small.toml: budgets.micro_tokens: found 51, expected at most"),
    ('"humaneval,mbpp=mbpp.jsonl"', '"humaneval"', "small.toml: data.decontaminate: does not name mbpp"),
    ('"{teacher}"', '"{tutor}"', "names the place {tutor}"),
    ('source = "stdlib"', 'source = "stdlib"\nfunctions = "stdlib"', "data.functions and budgets.num_functions"),
    ("= 12.5", '= "12.5"', "small.toml: published[0].scores.humaneval pass@1: found '12.5', expected a number"),
    ("humaneval pass@1", "humaneval pass@3", "small.toml: published[0].scores: found 'humaneval pass@3'"),
    ("train = 20", "trains = 20", "small.toml: rates.tokens_per_s: found 'trains'"),
    (
        '"mbpp-codet-chat-v1"',
        '"mbpp-chat-v1"',
        "small.toml: benchmarks.mbpp.sampled: found 'mbpp-chat-v1', expected of",
    ),
    ("[teacher]", "[teacher", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), CHANGES)
def test_a_wrong_recipe_is_refused_by_the_path_of_its_key(recipe_file: Path, old: str, new: str, message: str) -> None:
    text = recipe_file.read_text()
    assert old in text
    recipe_file.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError) as error:
        read_recipe(recipe_file)
    assert message in str(error.value)


def test_places_have_defaults_and_other_values(recipe_file: Path) -> None:
    assert read_recipe(recipe_file).teacher.model == "teacher-folder"
    assert read_recipe(recipe_file, {"teacher": "/models/t"}).teacher.model == "/models/t"
    with pytest.raises(RecipeError, match=r"--set tutor: small.toml has no such place; expected one of teacher"):
        read_recipe(recipe_file, {"tutor": "x"})


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none.toml: cannot be read"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_read_and_name_real_protocols(path: Path) -> None:
    from evalkit.tasks.presets import PROTOCOLS

    protocols = {protocol.name: protocol for protocol in PROTOCOLS}
    recipe = read_recipe(path)
    for task, benchmark in recipe.benchmarks.items():
        assert task in protocols[benchmark.greedy].tasks
        assert not protocols[benchmark.sampled].visible_tests
        assert protocols[benchmark.tests].kind == "tests"
    development = protocols[recipe.benchmarks["mbpp"].sampled].tasks
    assert {"mbpp:train", "mbpp:validation"} <= set(development)


def test_there_are_four_recipes_and_more() -> None:
    names = {"qwen-0.5b-smollm2-135m", "codellama-70b-phi-2", "codellama-70b-tinyllama"}
    assert {path.stem for path in RECIPES} >= names | {"deepseek-coder-1.3b-replication"}

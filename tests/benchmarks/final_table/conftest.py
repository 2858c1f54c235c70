"""A recipe of two arms for the tests of the final table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.final_table.jobs import Setup
from benchmarks.final_table.recipe import read_recipe

RECIPE = """
title = "A small table"
arms = ["sft", "kd", "self"]
seeds = [0, 1]
engine = "transformers"

[places]
teacher = "teacher-folder"

[teacher]
title = "Teacher"
model = "{teacher}"

[student]
title = "Student"
model = "student-folder"

[data]
source = "stdlib"
decontaminate = "humaneval,mbpp=mbpp.jsonl"

[budgets]
prompts = 10
samples = 2
self_samples = 2
new_tokens = 100
source_tokens = 1000
steps = 4
response_steps = 4
batch_tokens = 50
micro_tokens = 50
learning_rate = 1e-4

[benchmarks.humaneval]
greedy = "humaneval-evalplus-chat-v1"
sampled = "humaneval-codet-chat-v1"
tests = "humaneval-codet-tests-chat-v1"
problems = 4
sampled_problems = 4
plus = "humaneval+"

[benchmarks.mbpp]
greedy = "mbpp-chat-v1"
sampled = "mbpp-codet-chat-v1"
tests = "mbpp-codet-tests-chat-v1"
problems = 4
sampled_problems = 4

[selection]
selectors = ["majority", "verifier"]
samples = 10
texts = 5
new_tokens = 100
test_tokens = 50
refinements = 1

[rates]
source = "made up"
programs_per_s = 2.0
tokens_per_s = { write = 10, "write teacher" = 5, record = 100, train = 20, compare = 50 }

[[published]]
title = "A model"
source = "a paper"
scores = { "humaneval pass@1" = 12.5 }
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def setup(recipe_file: Path, tmp_path: Path) -> Setup:
    return Setup(recipe=read_recipe(recipe_file), scratch=tmp_path / "scratch")

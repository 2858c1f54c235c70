"""Files that list all texts of a prompt, as CodeT's authors published them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.rerank.model_tests import read_tests
from evalkit.samples.given import read_samples
from evalkit.samples.merged import read_merged
from evalkit.tasks.base import Benchmark
from evalkit.tasks.codet_prompts import without_examples
from tests.evalkit.commands import write_lines


def test_every_prompt_of_codet_names_its_problem(tmp_path: Path, humaneval: Benchmark) -> None:
    rows = [{"prompt": without_examples(problem), "samples": [f"{problem.task_id}"]} for problem in humaneval.problems]
    samples = read_samples(write_lines(tmp_path / "s.jsonl", *rows), humaneval).samples
    assert len({problem.entry_points for problem in humaneval.problems}) < len(samples) == 164
    assert all(sample.task_id == sample.completion for sample in samples)
    tests = [row | {"prompt": f"{row['prompt']}    pass\n\n# check the correctness of f\nassert "} for row in rows]
    written = read_tests(write_lines(tmp_path / "t.jsonl", *tests), humaneval, note=lambda _: None)
    assert (written.num_texts, written.num_unknown) == (164, 0)


def test_solutions_are_cut_at_the_stop_strings_and_tests_are_not(tmp_path: Path, humaneval: Benchmark) -> None:
    prompt = "def add(x: int, y: int):\n    '''Add two numbers x and y'''\n"
    path = write_lines(
        tmp_path / "s.jsonl",
        {"prompt": prompt, "samples": ["    return x + y\n\ndef f(): pass\n", "    return 1\nprint(2)\n# no"]},
    )
    assert [sample.completion for sample in read_samples(path, humaneval).samples] == [
        "    return x + y\n", "    return 1",
    ]  # fmt: skip
    merged = read_merged([path], humaneval, sanitize=False, limit=None, note=lambda _: None)
    assert merged.prompts == {"HumanEval/53": prompt}
    texts = {"prompt": prompt, "samples": ["add(1, 2) == 3\ndef g(): pass\nassert add(2, 3) == 5"]}
    written = read_tests(write_lines(tmp_path / "t.jsonl", texts), humaneval, note=lambda _: None)
    assert [test.source for test in written.by_task["HumanEval/53"]] == [
        "assert add(1, 2) == 3", "assert add(2, 3) == 5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "def other():\n", "samples": [""]}, "line 1: its prompt begins other, expected a function of"),
        ({"samples": [""]}, "line 1: it has neither a task_id nor a prompt with a function"),
        ({"prompt": "def add(x, y):", "samples": "text"}, "line 1: samples is no list of texts"),
        ({"task_id": "HumanEval/53", "samples": [1]}, "line 1: samples is no list of texts"),
    ],
)
def test_rows_that_cannot_be_taken_apart_are_errors(
    tmp_path: Path, humaneval: Benchmark, row: dict[str, object], message: str
) -> None:
    with pytest.raises(EvalError, match=message):
        read_samples(write_lines(tmp_path / "s.jsonl", row), humaneval)

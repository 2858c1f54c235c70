"""Extraction of asserts by CodeT's rule, against a slow reading of it, and test files good and bad."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.rerank.model_tests import WrittenTest, count_tests, extract_asserts, in_block, read_tests
from evalkit.tasks.base import Benchmark, Problem

FRAGMENTS = [
    "assert ", "f(1) == 2", "f(1)", " == ", "\n", "\nassert ", "\ndef g():\n    assert f(2)\n", "\n# f", "\nif x:",
    "\nclass", "\nprint(f(1))", "g(1) == 2", "(", ")", "  ", ", 'assert f'", "f", "#f\n", "\\\n", "x=3", '"""', "not ",
]  # fmt: skip


def slow_asserts(text: str) -> list[str]:
    """Follow the authors' rule word for word, one step at a time."""
    found = []
    for part in f"assert {text}".split("assert "):
        if "f" not in part or len(part.strip()) < 1:
            continue
        source = f"assert {part}".strip()
        for stop in ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]:
            if stop in source:
                source = source.split(stop)[0]
        source = source.strip()
        if len(source) < 1 or "assert" not in source:
            continue
        block = "try:\n    " + source.replace("\n", "\n    ") + "\nexcept:\n    pass\n"
        try:
            compile(block, "", "exec")
        except Exception:
            continue
        found.append(source)
    return found


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_extraction_equals_a_slow_reading_of_the_rule() -> None:
    generator = random.Random(0)
    num_found = 0
    for _ in range(4000):
        text = "".join(generator.choices(FRAGMENTS, k=generator.randint(0, 12)))
        found = extract_asserts(text, ("f",))
        assert found == slow_asserts(text), text
        num_found += len(found)
        for source in found:
            compile(in_block(source), "", "exec")
    assert num_found > 1000


def test_the_first_five_valid_asserts_of_each_text_count() -> None:
    text = "f(0) ==\nassert " + "\nassert ".join(f"f({i}) == {i}" for i in range(1, 9))
    tests = count_tests([text, "f(1) == 1\nassert f(1) == 1", ""], ("f",))
    assert tests == (
        WrittenTest(source="assert f(1) == 1", times_written=3),
        *(WrittenTest(source=f"assert f({i}) == {i}", times_written=1) for i in range(2, 6)),
    )


def test_a_part_that_names_no_entry_point_is_left_out() -> None:
    assert extract_asserts("g(1) == 2\nassert h(1)", ("f",)) == []
    assert extract_asserts("g(1) == 2\nassert h(1)", ("f", "h")) == ["assert h(1)"]


def problem(number: int) -> Problem:
    return Problem(
        task_id=f"Toy/{number}", prompt="def f(x):\n", entry_points=("f",), prelude="", test="", reference=""
    )


TOY = Benchmark(name="toy", problems=(problem(0), problem(1)), source="", sha256="")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_rows_that_hold_no_test_are_counted_and_said(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [
        {"task_id": "Toy/0", "completion": "f(1) == 2"},
        {"task_id": "0", "completion": "f(1) == 2"},
        {"task_id": "Toy/0", "completion": "  "},
        {"task_id": "Toy/7", "completion": "f(1) == 2"},
        {"task_id": "Toy/1", "completion": "f(1) =="},
    ]
    path, notes = write(tmp_path / name, rows), []
    tests = read_tests(path, TOY, note=notes.append)
    assert tests.by_task == {"Toy/0": (WrittenTest(source="assert f(1) == 2", times_written=2),), "Toy/1": ()}
    assert (tests.num_texts, tests.num_tests, tests.without_tests) == (4, 1, ("Toy/1",))
    assert notes == [
        f"{path}: 1 rows are of problems that toy does not have: left out",
        f"{path}: 1 of 4 texts are empty: they hold no test",
        f"{path}: 1 of 4 texts repeat an earlier text of their problem: their tests count again",
        f"{path}: 1 of 2 toy problems have no valid test (Toy/1): methods that need tests pick at random there",
    ]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"task_id": "Toy/0"}, "t.jsonl line 1: has no completion; expected a JSON object with task_id and completion"),
        ({"task_id": "Toy/0", "completion": 3}, "line 1: has a completion that is int, not text"),
        ({"completion": "f(1)"}, "line 1: has no task_id"),
        ({"task_id": "Other/3", "completion": "f(1)"}, "holds only ids such as 'Other/3', expected tests of toy"),
    ],
)
def test_an_unreadable_row_is_an_error_that_names_it(tmp_path: Path, row: dict[str, object], error: str) -> None:
    with pytest.raises(EvalError) as caught:
        read_tests(write(tmp_path / "t.jsonl", [row]), TOY, note=print)
    assert error in str(caught.value)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="holds no row, expected tests of toy"):
        read_tests(write(tmp_path / "t.jsonl", []), TOY, note=print)

"""Tests of reading, storing and reusing samples."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.samples.base import Sample
from evalkit.samples.given import read_samples
from evalkit.samples.sample_file import EarlierRun, SampleFile
from evalkit.tasks.base import Benchmark
from tests.evalkit.processes import largest_file


def test_completions_continue_the_prompt_and_solutions_stand_alone(tmp_path: Path, humaneval: Benchmark):
    path = tmp_path / "samples.jsonl"
    path.write_text(
        '{"task_id": "HumanEval/0", "completion": "    return 1\\n"}\n\n'
        '{"task_id": "HumanEval/1", "solution": "x = 1"}\n'
    )
    first, second = read_samples(path, humaneval).samples
    assert first.program(humaneval.problems[0]) == humaneval.problems[0].prompt + "    return 1\n"
    assert second.program(humaneval.problems[1]) == "x = 1"


def test_plain_ids_gz_files_and_several_samples_per_task_are_read(tmp_path: Path, humaneval: Benchmark):
    path = tmp_path / "samples.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write('{"task_id": "3", "completion": "a"}\n{"task_id": 3, "completion": "b", "extra": 1}\n')
    samples = read_samples(path, humaneval).samples
    assert [(sample.task_id, sample.index, sample.completion) for sample in samples] == [
        ("HumanEval/3", 0, "a"),
        ("HumanEval/3", 1, "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no sample"),
        ("{nope\n", "line 1: is not JSON"),
        ('{"task_id": "HumanEval/0", "completion": "a"}\n[1]\n', "line 2: has no task_id"),
        ('{"completion": "a"}\n', "line 1: has no task_id"),
        ('{"task_id": "HumanEval/0"}\n', "line 1: has no completion and no solution"),
        ('{"task_id": "HumanEval/0", "completion": null}\n', "line 1: has no completion and no solution"),
        ('{"task_id": "HumanEval/0", "completion": 3}\n', "line 1: completion is int, not text"),
        ('{"task_id": "HumanEval/0", "completion": "a", "solution": ["b"]}\n', "line 1: solution is list, not text"),
        ('{"task_id": null, "completion": "a"}\n', "line 1: has no task_id"),
        ('{"task_id": "Mbpp/11", "completion": "a"}\n', "line 1: task_id 'Mbpp/11' is not of humaneval"),
        ('{"task_id": "HumanEval/999", "completion": "a"}\n', "is not of humaneval"),
    ],
)
def test_bad_sample_files_are_named_with_their_line(tmp_path: Path, humaneval: Benchmark, text: str, message: str):
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(EvalError, match=message):
        read_samples(path, humaneval)


def test_samples_of_another_form_of_the_benchmark_are_left_out_and_counted(tmp_path: Path, humaneval: Benchmark):
    smaller = replace(
        humaneval, problems=humaneval.problems[:2], excluded_ids=frozenset({"HumanEval/2", "HumanEval/3"})
    )
    path = tmp_path / "samples.jsonl"
    lines = [f'{{"task_id": "HumanEval/{number}", "completion": "a"}}\n' for number in (0, 2, 3, 3)]
    path.write_text("".join(lines))
    given = read_samples(path, smaller)
    assert [sample.task_id for sample in given.samples] == ["HumanEval/0"]
    assert given.excluded == ["HumanEval/2", "HumanEval/3", "HumanEval/3"]
    path.write_text(lines[1])
    with pytest.raises(EvalError, match="only samples of problems that humaneval does not have"):
        read_samples(path, smaller)
    path.write_text('{"task_id": "HumanEval/7", "completion": "a"}\n')
    with pytest.raises(EvalError, match="is not of humaneval"):
        read_samples(path, smaller)


def test_binary_and_missing_files_are_refused(tmp_path: Path, humaneval: Benchmark):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "fake.gz").write_bytes(b"not gzip")
    for name in ("binary", "fake.gz", "missing"):
        with pytest.raises(EvalError, match=name):
            read_samples(tmp_path / name, humaneval)


def sample(index: int, run: str = "r1") -> Sample:
    return Sample(task_id="HumanEval/0", index=index, completion=f"c{index}", run=run)


def test_an_interrupted_file_is_continued_without_its_torn_last_line(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path, run="r1") as file:
        file.add(sample(0))
        file.add(sample(1))
    path.write_text(path.read_text()[:-9])
    with SampleFile(path, run="r1") as file:
        assert list(file.found) == [("HumanEval/0", 0)]
        file.add(sample(1))
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == [0, 1]


def test_samples_of_another_run_are_moved_aside(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path, run="r1") as file:
        file.add(sample(0))
    with SampleFile(path, run="r2") as file:
        assert file.found == {}
        assert file.renamed_to == tmp_path / "samples.r1.jsonl"
    assert "c0" in (tmp_path / "samples.r1.jsonl").read_text()


def test_samples_of_earlier_settings_are_renamed_back(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    for turn, run in enumerate(("r1", "r2", "r1", "r2", "r3", "r1")):
        with SampleFile(path, run=run) as file:
            assert len(file.found) == (0 if turn in (0, 1, 4) else 2), (turn, run)
            if not file.found:
                file.add(sample(0, run))
                file.add(sample(1, run))
    kept = {name.name: len(name.read_text().splitlines()) for name in tmp_path.iterdir()}
    assert kept == {"samples.jsonl": 2, "samples.r2.jsonl": 2, "samples.r3.jsonl": 2}


def test_a_run_that_wrote_nothing_hides_no_earlier_samples(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path, run="r1") as file:
        file.add(sample(0))
    with SampleFile(path, run="r2"):
        pass  # it could not load its model
    with SampleFile(path, run="r1") as file:
        assert len(file.found) == 1


def test_foreign_lines_are_never_lost(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    mine, other = sample(0, "r1").to_line(), sample(1, "r2").to_line()
    for number, text in enumerate((mine + other, '{"my": "notes"}\n', other + mine + "x"), 1):
        path.write_text(text)
        with SampleFile(path, run="r1") as file:
            assert len(file.found) == text.count('"r1"')
            assert file.renamed_to == tmp_path / f"samples.jsonl.old{number}"
        assert file.renamed_to.read_text() == text
        assert path.read_text() == mine * text.count('"r1"')
        path.unlink()


def test_a_full_disk_is_one_error_and_costs_the_last_line_only(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    line = len(sample(0).to_line())
    with pytest.raises(EvalError, match=r"samples\.jsonl: cannot be written \(File too large\); free space"):
        fill(path, size_limit=2 * line + line // 2)
    with SampleFile(path, run="r1") as file:
        assert list(file.found) == [("HumanEval/0", 0), ("HumanEval/0", 1)]
        file.add(sample(2))
    assert path.read_text() == "".join(sample(index).to_line() for index in range(3))


def fill(path: Path, *, size_limit: int) -> None:
    """Write samples until a file may not grow further."""
    with largest_file(size_limit), SampleFile(path, run="r1") as file:
        for index in range(4):
            file.add(sample(index))


def test_an_error_of_the_run_is_not_replaced_by_one_of_the_disk(tmp_path: Path):
    class BrokenStream:
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    def run(error: Exception | None) -> None:
        with SampleFile(tmp_path / "samples.jsonl", run="r1") as file:
            file._stream.close()
            file._stream = BrokenStream()
            if error is not None:
                raise error

    with pytest.raises(KeyError, match="of the run"):
        run(KeyError("of the run"))
    with pytest.raises(EvalError, match="No space left on device"):
        run(None)


def test_samples_of_an_earlier_digest_are_taken_over_and_others_are_kept(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    whole, cut = sample(0, "old"), replace(sample(1, "old"), task_id="HumanEval/1", raw="text")
    earlier = EarlierRun("old", changed=frozenset({"HumanEval/1"}))
    path.write_text(whole.to_line() + "{torn")
    with SampleFile(path, run="r1", earlier=earlier) as file:
        assert (list(file.found), file.renamed_to) == ([("HumanEval/0", 0)], None)
        file.add(sample(2))
    assert path.read_text() == sample(0).to_line() + sample(2).to_line()
    path.write_text(before := whole.to_line() + cut.to_line())
    with SampleFile(path, run="r1", earlier=earlier) as file:
        assert list(file.found) == [("HumanEval/0", 0)]
        assert file.renamed_to is not None
        assert file.renamed_to.read_text() == before
    path.unlink()
    (tmp_path / "samples.old.jsonl").write_text(whole.to_line())  # as 0.2.0 names samples of other settings
    with SampleFile(path, run="r1", earlier=earlier) as file:
        assert list(file.found) == [("HumanEval/0", 0)]

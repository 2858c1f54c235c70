"""Tests of `evalkit write-tests`: files, resumption, compression and one-line errors."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from evalkit.rerank.inputs.generators import read_generators
from evalkit.rerank.model_tests import read_tests
from evalkit.tasks.base import Benchmark
from tests.evalkit.commands import call
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

FAST = ("--limit", 2, "--n", 3, "--max-new-tokens", 8, "--dtype", "float32")


def lines(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", ["tests.jsonl", "tests.jsonl.gz"])
@pytest.mark.slow
def test_a_checkpoint_writes_tests_and_a_second_run_reuses_them(tmp_path: Path, checkpoint: Path, name: str):
    out = tmp_path / name
    first = call("write-tests", checkpoint, *FAST, "--out", out)
    assert first.exit_code == 0, first.output
    assert "humaneval: 6 texts (0 reused)" in first.output
    assert "without visible tests" in first.output
    written = lines(out)
    assert sorted({line["task_id"] for line in written}) == ["HumanEval/0", "HumanEval/1"]
    assert [line["index"] for line in written if line["task_id"] == "HumanEval/0"] == [0, 1, 2]
    prompts = {line["prompt"] for line in written if line["task_id"] == "HumanEval/0"}
    assert [prompt[prompt.index("    pass") :] for prompt in prompts] == [
        "    pass\n\n# check the correctness of has_close_elements\nassert "
    ]
    assert "solution" not in written[0]
    second = call("write-tests", checkpoint, *FAST, "--out", out)
    assert "6 texts (6 reused)" in second.output
    assert lines(out) == written
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["tests.jsonl", "tests.jsonl.gz"])
def test_a_killed_run_goes_on(tmp_path: Path, checkpoint: Path, name: str):
    args = ("write-tests", checkpoint, *FAST, "--deterministic", "--batch-size", 2, "--out")
    assert call(*args, tmp_path / "whole.jsonl").exit_code == 0
    whole = lines(tmp_path / "whole.jsonl")
    growing = tmp_path / ("tests.partial.jsonl" if name.endswith(".gz") else name)
    growing.write_text("".join(json.dumps(line) + "\n" for line in whole[:3]) + '{"task_id": "Huma')
    resumed = call(*args, tmp_path / name)
    assert "6 texts (3 reused)" in resumed.output
    assert sorted(map(str, lines(tmp_path / name))) == sorted(map(str, whole))
    assert growing.name == name or not growing.exists()


def test_texts_of_other_settings_are_moved_and_come_back(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "tests.jsonl.gz"
    assert call("write-tests", checkpoint, *FAST, "--out", out).exit_code == 0
    first = lines(out)
    other = call("write-tests", checkpoint, *FAST, "--seed", 1, "--out", out)
    assert "moved to tests.partial." in other.output
    assert lines(out) != first
    assert len(list(tmp_path.glob("tests.partial.*.jsonl"))) == 1
    again = call("write-tests", checkpoint, *FAST, "--out", out)
    assert "6 texts (6 reused)" in again.output
    assert lines(out) == first


def test_several_benchmarks_get_a_file_each(tmp_path: Path, checkpoint: Path, shared_data: Path):
    done = call("write-tests", checkpoint, *FAST, "--tasks", "humaneval,mbpp:train", "--data-dir", shared_data,
                "--out", tmp_path / "tests.jsonl")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tests.humaneval.jsonl", "tests.mbpp:train.jsonl"]
    assert lines(tmp_path / "tests.mbpp:train.jsonl")[0]["task_id"] in ("Mbpp/601", "Mbpp/602")


def test_functions_that_return_inputs_are_written_for_rerank(
    tmp_path: Path, checkpoint: Path, humaneval: Benchmark, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine("    return [([1.0], 2.0)]"))
    out = tmp_path / "inputs.jsonl"
    done = call("write-tests", checkpoint, *FAST, "--kind", "inputs", "--out", out)
    assert done.exit_code == 0, done.output
    assert "humaneval: 6 functions that return inputs (0 reused)" in done.output
    assert all(line["prompt"].endswith("arguments\nimport random\n\n\ndef generate_inputs():\n") for line in lines(out))
    programs = read_generators(out, humaneval, note=lambda _: None)
    assert programs["HumanEval/0"] == ("import random\n\n\ndef generate_inputs():\n    return [([1.0], 2.0)]",)
    assert programs["HumanEval/5"] == ()
    wrong = call("write-tests", checkpoint, "--protocol", "humaneval-inputs-v1", "--out", out)
    assert "writes inputs; it is for 'evalkit write-tests --kind inputs'" in wrong.output


def test_valid_asserts_are_counted_and_the_file_is_what_rerank_reads(
    tmp_path: Path, checkpoint: Path, humaneval: Benchmark, monkeypatch: pytest.MonkeyPatch
):
    text = "has_close_elements([], 1.0) == False\nassert has_close_elements([1.0, 1.0], 0.5)\n"
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine(text))
    out = tmp_path / "tests.jsonl"
    done = call("write-tests", checkpoint, *FAST, "--out", out)
    assert "2 distinct valid asserts" in done.output
    assert "1 of 2 problems have no valid assert (HumanEval/1)" in done.output
    tests = read_tests(out, humaneval, note=lambda _: None)
    assert [(test.source, test.times_written) for test in tests.by_task["HumanEval/0"]] == [
        ("assert has_close_elements([], 1.0) == False", 3),
        ("assert has_close_elements([1.0, 1.0], 0.5)", 3),
    ]


def test_a_chat_protocol_asks_in_the_model_s_own_template(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "tests.jsonl"
    args = ("write-tests", "--protocol", "humaneval-codet-tests-chat-v1", *FAST, "--out", out)
    done = call(*args, checkpoint)
    assert done.exit_code == 1
    assert "this checkpoint has no chat template" in done.output
    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    done = call(*args, copy)
    assert done.exit_code == 0, done.output
    assert all(line["prompt"].endswith("```python\nassert ") for line in lines(out))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--out", "CKPT/config.json"), "would become part of the checkpoint"),
        (("--out", "CKPT/tokenizer.jsonl"), "would become part of the checkpoint"),
        (("--out", "FOLDER"), "is a folder, expected the name of a file"),
        (("--out", "/dev/null"), "name a file in a folder"),
        (("--out", "FOLDER/t.jsonl", "--tasks", "mbpp+"), "no protocol writes tests for mbpp+"),
        (
            ("--out", "FOLDER/t.jsonl", "--protocol", "humaneval-codet-v1"),
            "writes solutions; it is for 'evalkit score'",
        ),
        (("--out", "FOLDER/t.jsonl", "--protocol", "nope"), "protocol 'nope' is unknown"),
        (("--out", "FOLDER/t.jsonl", "--temperature", "0"), "gives equal samples"),
    ],
)
def test_mistakes_are_named_in_one_line(
    tmp_path: Path, checkpoint: Path, shared_data: Path, args: tuple[str, ...], message: str
):
    filled = [arg.replace("CKPT", str(checkpoint)).replace("FOLDER", str(tmp_path)) for arg in args]
    before = sorted([*tmp_path.rglob("*"), *checkpoint.rglob("*")])
    done = call("write-tests", checkpoint, "--data-dir", shared_data, *filled)
    assert done.exit_code == 1, done.output
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted([*tmp_path.rglob("*"), *checkpoint.rglob("*")]) == before


def test_a_damaged_gzip_file_is_not_replaced(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "tests.jsonl.gz"
    out.write_bytes(gzip.compress(b"x" * 999)[:20])
    done = call("write-tests", checkpoint, *FAST, "--out", out)
    assert done.exit_code == 1
    assert "is no complete gzip file" in done.stderr
    assert len(out.read_bytes()) == 20


def test_a_protocol_for_tests_is_refused_by_score(tmp_path: Path, checkpoint: Path):
    done = call("score", checkpoint, "--protocol", "humaneval-codet-tests-v1", "--json", tmp_path / "score.json")
    assert done.exit_code == 1
    assert "protocol humaneval-codet-tests-v1 writes tests; it is for 'evalkit write-tests'" in done.stderr

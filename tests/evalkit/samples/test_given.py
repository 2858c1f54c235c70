"""Tests of the forms in which samples are read."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.samples.base import Execution, Sample
from evalkit.samples.given import fence_hint, read_samples, sanitized
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks import registry
from evalkit.tasks.base import Benchmark, Problem
from tests.evalkit.commands import ENVIRONMENT, RIGHT, WRONG, call, write_lines


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


LINES = (json.dumps(RIGHT) + "\n" + json.dumps(WRONG) + "\n").encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("utf16.jsonl", LINES.decode().encode("utf-16")),
        ("capital.jsonl.GZ", gzip.compress(LINES, mtime=0)),
        ("no-suffix", gzip.compress(LINES, mtime=0)),
        ("bom.gz", gzip.compress(b"\xef\xbb\xbf" + LINES, mtime=0)),
        (
            "two-parts.gz",
            gzip.compress(LINES[: len(LINES) // 2], mtime=0) + gzip.compress(LINES[len(LINES) // 2 :], mtime=0),
        ),
        ("plain.gz", LINES),
        ("array.json", json.dumps([RIGHT, WRONG]).encode()),
        ("array.jsonl.gz", gzip.compress(b"\xef\xbb\xbf  \n" + json.dumps([RIGHT, WRONG], indent=2).encode(), mtime=0)),
        ("windows.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("no-newline.jsonl", LINES.rstrip()),
        ("ids.jsonl", LINES.replace(b'"HumanEval/53"', b'" HumanEval/53\\n"')),
        ("numbers.jsonl", LINES.replace(b'"HumanEval/53"', b"53")),
    ],
)
def test_common_encodings_and_layouts_are_read(tmp_path: Path, humaneval: Benchmark, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    given = read_samples(tmp_path / name, humaneval)
    assert [(sample.task_id, sample.index, sample.completion) for sample in given.samples] == [
        ("HumanEval/53", 0, RIGHT["completion"]),
        ("HumanEval/53", 1, WRONG["completion"]),
    ]


def test_of_completion_and_solution_the_solution_counts(tmp_path: Path, humaneval: Benchmark):
    both = RIGHT | {"solution": "def add(x, y):\n    return 0\n"}
    path = write_lines(tmp_path / "s.jsonl", both, RIGHT | {"solution": None})
    first, second = read_samples(path, humaneval).samples
    assert (first.solution, first.completion) == (both["solution"], None)
    assert (second.solution, second.completion) == (None, RIGHT["completion"])


def test_a_folder_of_evalplus_is_read_in_the_order_of_its_numbers(tmp_path: Path, humaneval: Benchmark):
    for task, number in (("HumanEval_53", 10), ("HumanEval_53", 9), ("HumanEval_2", 0), ("HumanEval_53", 0)):
        (tmp_path / task).mkdir(exist_ok=True)
        (tmp_path / task / f"{number}.py").write_text(f"# {task} {number}")
    (tmp_path / "HumanEval_53" / "notes.txt").write_text("not a program")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hook.py").write_text("")
    given = read_samples(tmp_path, humaneval)
    assert [(sample.task_id, sample.index, sample.solution) for sample in given.samples] == [
        ("HumanEval/2", 0, "# HumanEval_2 0"),
        ("HumanEval/53", 0, "# HumanEval_53 0"),
        ("HumanEval/53", 1, "# HumanEval_53 9"),
        ("HumanEval/53", 2, "# HumanEval_53 10"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvalError, match="holds no samples; expected a JSONL file, or a folder per task"):
        read_samples(tmp_path / "empty", humaneval)
    (tmp_path / "other" / "Nope_1").mkdir(parents=True)
    (tmp_path / "other" / "Nope_1" / "0.py").write_text("")
    with pytest.raises(EvalError, match=r"Nope_1/0.py: task_id 'Nope/1' is not of humaneval"):
        read_samples(tmp_path / "other", humaneval)


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_is_read_once_for_several_benchmarks(tmp_path: Path, packed: bool):
    content = gzip.compress(LINES, mtime=0) if packed else LINES
    done = call("score", "--samples", "-", "--json", tmp_path / "r.json", "--no-html", input=io.BytesIO(content))
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == 0.5
    assert result["samples"]["path"] == "standard input"


def test_a_pipe_with_a_name_is_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(LINES))
    writer.start()
    done = call("score", "--samples", tmp_path / "pipe", "--json", tmp_path / "r.json", "--no-html")
    writer.join()
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_file_on_standard_input_is_not_replaced(tmp_path: Path, source: str):
    samples = write_lines(tmp_path / "s.jsonl", RIGHT)
    before = samples.read_text()
    command = [sys.executable, "-m", "evalkit", "score", "--samples", source, "--json", samples]
    with samples.open() as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"evalkit: --json {samples}: is an input (/dev/stdin)")
    assert samples.read_text() == before


def test_a_user_without_a_home_gets_an_error_and_no_folder_named_by_a_tilde(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    done = call("score", "--samples", samples)
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "evalkit: ~nobody-of-this-name/cache: there is no such home folder; set XDG_CACHE_HOME"
    )
    assert not list(tmp_path.glob("~*"))


def test_an_empty_checkpoint_and_a_data_folder_that_is_not_there_are_refused(samples: Path):
    assert call("score", "").exit_code == 2
    done = call("score", "--samples", samples, "--data-dir", samples.parent / "none")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"evalkit: --data-dir {samples.parent / 'none'}: no such folder")


@pytest.mark.parametrize("named", ["folder", "file"])
def test_gguf_weights_are_one_line_that_says_how_to_convert_them(tmp_path: Path, named: str):
    path = tmp_path / "model-Q4_K_M.gguf"
    path.write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = call("score", tmp_path if named == "folder" else path)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "its weights are GGUF (model-Q4_K_M.gguf)" in line
    assert "gguf_file='model-Q4_K_M.gguf'" in line


@pytest.mark.slow
def test_from_standard_input_the_result_goes_to_a_folder_here(tmp_path: Path):
    for source in ("-", "/dev/stdin"):
        command = [sys.executable, "-m", "evalkit", "score", "--samples", source]
        done = subprocess.run(command, input=LINES, capture_output=True, cwd=tmp_path, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["stdin-evalkit"]


FENCED = (
    {"task_id": "HumanEval/53", "completion": "Sure!\n```python\ndef add(x, y):\n    return x + y\n```\nDone."},
    {"task_id": "HumanEval/53", "completion": "```python\n    return x + y\n```"},
    {"task_id": "HumanEval/53", "solution": "```\ndef add(x, y):\n    return x + y\n```\n\n```\nadd(1, 2)\n```"},
)


def test_fences_that_make_all_samples_fail_give_a_hint_and_are_sanitized(tmp_path: Path):
    path = write_lines(tmp_path / "s.jsonl", *FENCED)
    plain = call("score", "--samples", path, "--json", tmp_path / "r.json")
    assert "hint: 3 of 3 samples hold Markdown fences" in plain.stderr
    assert "--sanitize" in plain.stderr
    done = call("score", "--samples", path, "--sanitize", "--json", tmp_path / "r.json")
    assert done.exit_code == 0
    assert "hint" not in done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == 1, result["tasks"]
    assert result["samples"]["sanitized"] is True
    assert "original answer" in (tmp_path / "r.html").read_text()


def test_answers_of_chat_models_are_reduced_to_their_program(tmp_path: Path, humaneval: Benchmark):
    asked = [{"role": "user", "content": "Complete this function."}]
    name = humaneval.problems[0].entry_points[0]
    program = f"def {name}(numbers, threshold):\n    return False\n"
    row = {"task_id": "HumanEval/0", "messages": asked, "completion": f"Sure:\n```python\n{program}```\nDone."}
    sample = read_samples(write_lines(tmp_path / "s.jsonl", row), humaneval).samples[0]
    assert (sample.solution, sample.completion, sample.raw) == (program, None, row["completion"])
    plain = read_samples(write_lines(tmp_path / "p.jsonl", row | {"messages": []}), humaneval).samples[0]
    assert plain.completion == row["completion"]
    with pytest.raises(EvalError, match="line 1: messages is str, expected a list"):
        read_samples(write_lines(tmp_path / "b.jsonl", row | {"messages": "Complete"}), humaneval)


def test_a_class_beside_the_function_stays_in_the_program():
    """The names that the checks use are sorted, so the class comes first."""
    reference = "class Pair:\n    pass\n\n\ndef chain(pairs):\n    return len(pairs)\n"
    problem = Problem(
        task_id="Mbpp/1", prompt="", entry_points=("Pair", "chain"), prelude="", test="", reference=reference
    )
    benchmark = Benchmark(name="mbpp", problems=(problem,), source="", sha256="")
    answer = f"Sure:\n```python\n{reference}```\nIt counts the pairs, for example:\n```python\nchain([])\n```\n"
    assert sanitized(Sample(task_id="Mbpp/1", completion=answer), benchmark).solution == reference.replace(
        "\n\n\n", "\n\n"
    )


def test_a_fence_in_a_sample_that_is_python_gives_no_hint():
    fenced = Sample(task_id="HumanEval/53", solution='"""\n```\nx\n```\n"""\n')
    wrong = Verdict(outcome="wrong", detail="assert ...")
    no_python = Verdict(outcome="exception", detail="SyntaxError: invalid syntax")
    assert fence_hint([Execution(sample=fenced, verdict=wrong)]) == ""
    assert fence_hint([Execution(sample=fenced, verdict=no_python)]) != ""


def test_plain_mbpp_ids_are_read(tmp_path: Path, shared_data: Path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"task_id": 11, "solution": "x"}\n{"task_id": "Mbpp/12", "completion": "y"}\n')
    samples = read_samples(path, registry.load("mbpp", data_dir=shared_data)).samples
    assert [sample.task_id for sample in samples] == ["Mbpp/11", "Mbpp/12"]


@pytest.mark.slow
def test_samples_for_an_older_mbpp_plus_are_left_out_and_reported(tmp_path: Path, shared_data: Path):
    samples, result = tmp_path / "samples.jsonl", tmp_path / "score.json"
    reference = registry.load("mbpp+", data_dir=shared_data).problems[0]
    lines = [{"task_id": reference.task_id, "solution": reference.reference}, {"task_id": "Mbpp/83", "solution": "x"}]
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["score", "--samples", samples, "--tasks", "mbpp+", "--data-dir", shared_data, "--json", result]
    done = CliRunner().invoke(main, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 samples are of 1 problems that mbpp+ does not have (Mbpp/83, ...): left out" in done.output
    scores = json.loads(result.read_text())["scores"]["mbpp+"]
    assert (scores["pass@1"], scores["left_out"], scores["missing"]) == (1.0, 1, 377)
    assert "1 samples are of problems that this form" in result.with_suffix(".html").read_text()

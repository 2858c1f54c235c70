"""What evalkit writes: names that stay apart, no input overwritten, one run at a time, text that cannot be shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.outputs import paths
from evalkit.sandbox.verdict import Verdict
from tests.evalkit.commands import ENVIRONMENT, RIGHT, WRONG, call, write_lines
from tests.evalkit.run_folder import write_run


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


# Names


def test_dots_in_names_keep_results_pages_and_partial_files_apart(tmp_path: Path):
    right = write_lines(tmp_path / "temp0.2.jsonl", RIGHT)
    wrong = write_lines(tmp_path / "temp0.8.jsonl", WRONG)
    for path in (right, wrong):
        assert call("score", "--samples", path).exit_code == 0
    for name, passed in (("temp0.2", 1), ("temp0.8", 0)):
        folder = tmp_path / f"{name}-evalkit"
        assert json.loads((folder / "score.json").read_text())["scores"]["humaneval"]["pass@1"] == passed
        assert f"<h1>{name}.jsonl</h1>" in (folder / "score.html").read_text()
    assert call("score", "--samples", right, "--json", tmp_path / "lr0.1").exit_code == 0
    assert call("score", "--samples", wrong, "--json", tmp_path / "lr0.3").exit_code == 0
    assert {"lr0.1", "lr0.1.html", "lr0.3", "lr0.3.html"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "names",
    [
        ("temp0.2.jsonl", "temp0.8.jsonl"),
        ("a.jsonl", "a.jsonl.gz", "a.json"),
        ("v1.2", "v1.3"),
        ("a.b.jsonl", "a.c.jsonl", "a.jsonl"),
        ("a", "a.jsonl"),
    ],
)
def test_no_two_files_of_samples_share_a_folder(names: tuple[str, ...]):
    folders = {paths.samples_folder(Path("x", name)) for name in names}
    assert len(folders) == len(names)
    assert all(folder.parent == Path("x") for folder in folders)


def test_what_lies_beside_a_result_has_its_whole_name():
    names = ("temp0.2.json", "temp0.8.json", "temp0.2", "lr1e-4.b.json")
    assert len({paths.beside(Path(name), ".samples.jsonl") for name in names[:2] + names[3:]}) == 3
    assert paths.beside(Path("x/temp0.2.json"), ".html") == Path("x/temp0.2.html")
    assert paths.beside(Path("x/temp0.2"), ".html") == Path("x/temp0.2.html")


# Outputs and inputs


def linked(folder: Path, samples: Path, how: str) -> Path:
    other = folder / "other.json"
    if how == "symlink":
        other.symlink_to(samples)
    elif how == "hard link":
        os.link(samples, other)
    elif how == "folder link":
        (folder / "link").symlink_to(folder)
        return folder / "link" / samples.name
    elif how == "relative":
        return folder / "x" / ".." / samples.name
    else:
        return samples
    return other


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "folder link", "relative"])
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_no_output_may_be_the_samples(tmp_path: Path, samples: Path, option: str, how: str):
    (tmp_path / "x").mkdir()
    before = samples.read_text()
    done = call("score", "--samples", samples, option, linked(tmp_path, samples, how))
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert f"evalkit: {option} " in line
    assert "is an input" in line
    assert samples.read_text() == before


def test_outputs_are_not_one_another(tmp_path: Path, samples: Path):
    done = call("score", "--samples", samples, "--json", tmp_path / "r", "--html", tmp_path / "." / "r")
    assert done.exit_code == 1
    assert "is also the output of --json" in done.stderr
    run = write_run(tmp_path / "run", kl=0.8)
    done = call("report", run, "--out", tmp_path / "r.html", "--markdown", tmp_path / "r.html")
    assert (done.exit_code, "is also the output of --out" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "vocab_new.json"])
def test_no_output_replaces_or_joins_a_part_of_the_checkpoint(tmp_path: Path, name: str):
    folder = tmp_path / "ckpt"
    folder.mkdir()
    for part in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / part).write_text('{"model_type": "llama"}')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = call("score", folder, "--json", folder / name)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_output_replaces_benchmark_data_or_a_result(tmp_path: Path, samples: Path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "HumanEval.jsonl.gz").write_bytes(b"x")
    done = call("score", "--samples", samples, "--data-dir", data, "--json", data / "HumanEval.jsonl.gz")
    assert done.exit_code == 1
    assert (data / "HumanEval.jsonl.gz").read_bytes() == b"x"
    for name in ("a.json", "b.json"):
        assert call("score", "--samples", samples, "--json", tmp_path / name).exit_code == 0
    before = (tmp_path / "b.json").read_text()
    done = call("compare", tmp_path / "a.json", tmp_path / "b.json", "--html", tmp_path / "b.json")
    assert (done.exit_code, "is an input" in done.stderr) == (1, True)
    run = write_run(tmp_path / "run", kl=0.8)
    done = call("report", run, "--out", run / "run.json", "--score", tmp_path / "b.json")
    assert (done.exit_code, "is an input" in done.stderr) == (1, True)
    assert (tmp_path / "b.json").read_text() == before


def test_a_device_is_written_to_and_not_replaced(samples: Path):
    command = [sys.executable, "-m", "evalkit", "score", "--samples", samples, "--json", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[: done.stdout.index("\n}") + 2])["scores"]["humaneval"]["pass@1"] == 1
    assert Path("/dev/stdout").is_symlink()
    assert call("score", "--samples", samples, "--json", "/dev/null", "--no-html").exit_code == 0
    assert not Path("/dev/null").is_file()
    assert not Path("/dev/null.html").exists()


def test_a_result_that_is_a_link_is_written_where_it_leads(tmp_path: Path, samples: Path):
    (tmp_path / "r.json").symlink_to(tmp_path / "real.json")
    assert call("score", "--samples", samples, "--json", tmp_path / "r.json").exit_code == 0
    assert (tmp_path / "r.json").is_symlink()
    assert "scores" in json.loads((tmp_path / "real.json").read_text())


# Two runs on one output


def test_a_second_run_on_one_output_is_told_and_a_lock_left_behind_is_no_hindrance(tmp_path: Path, samples: Path):
    result = tmp_path / "r.json"
    with paths.locked(result):
        done = call("score", "--samples", samples, "--json", result)
        assert done.exit_code == 1
        assert f"another evalkit writes this file (process {os.getpid()} on " in done.stderr
        assert not result.exists()
        assert call("score", "--samples", samples, "--json", tmp_path / "other.json").exit_code == 0
    (tmp_path / ".r.json.lock").write_text("process 1 on elsewhere")  # its process was killed
    assert call("score", "--samples", samples, "--json", result).exit_code == 0
    assert not list(tmp_path.glob(".*"))


def test_of_many_that_claim_at_once_one_at_a_time_holds(tmp_path: Path):
    holding, most, refused = [], [], []

    def claim() -> None:
        for _ in range(50):
            try:
                with paths.locked(tmp_path / "r.json"):
                    holding.append(1)
                    most.append(len(holding))
                    holding.pop()
            except EvalError:
                refused.append(1)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert not list(tmp_path.iterdir())


def test_settings_that_come_back_find_their_samples(tmp_path: Path, checkpoint: Path):
    args = ("score", checkpoint, "--limit", 2, "--max-new-tokens", 4, "--no-html", "--out", tmp_path)
    outputs = [call(*args, "--seed", seed).output for seed in (1, 2, 1, 2)]
    assert ["reused: 2 of 2 samples" in output for output in outputs] == [False, False, True, True]


# Text that cannot be shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("    return '\ud800'\n", r"\ud800"),
        ("    return x + y  # \x00\n", r"\x00"),
        ("    raise ValueError('\\x1b[31m red')  # \x1b[2J\n", r"\x1b[2J"),
        ("    return x + y  # \u202e gnp\n", r"\u202e"),
    ],
    ids=["surrogate", "NUL", "escape", "bidirectional"],
)
def test_what_cannot_be_shown_gets_a_verdict_and_a_page(tmp_path: Path, text: str, shown: str):
    path = write_lines(tmp_path / "s.jsonl", {"task_id": "HumanEval/53", "completion": text})
    for _ in range(2):  # the second time from the cache
        done = call("score", "--samples", path, "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert shown in page
    assert not any(ord(char) < 32 and char not in "\n\t" for char in page)
    (verdict,) = json.loads((tmp_path / "r.json").read_text())["tasks"]["HumanEval/53"]
    assert "\x1b" not in verdict["detail"]
    assert "\n" not in verdict["detail"]


def test_a_detail_is_one_line_whatever_was_raised():
    assert Verdict(outcome="exception", detail="ValueError: a\nb\r\x1b[0m\u2028c\n").detail == (
        r"ValueError: a\nb\r\x1b[0m\u2028c"
    )


def test_names_of_files_that_are_no_text_are_shown_escaped(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.jsonl"))
    path.write_text(json.dumps(RIGHT))
    command = [sys.executable, "-m", "evalkit", "score", "--samples", path]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert r"\udcff\x1b[31m-evalkit/score.json" in done.stdout
    command[-1] = Path(f"{path}x")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert r"\udcff\x1b[31m.jsonlx: no such file" in done.stderr

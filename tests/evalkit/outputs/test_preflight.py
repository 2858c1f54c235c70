"""Tests that outputs overwrite no input and join no checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.evalkit.commands import RIGHT, call, write_lines
from tests.evalkit.run_folder import write_run


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


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

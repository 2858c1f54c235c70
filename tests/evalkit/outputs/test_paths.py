"""Tests of output names and of the lock on a result."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.outputs import paths
from tests.evalkit.commands import RIGHT, WRONG, call, write_lines


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


@pytest.mark.slow
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


def test_files_beside_a_result_keep_its_whole_name():
    names = ("temp0.2.json", "temp0.8.json", "temp0.2", "lr1e-4.b.json")
    assert len({paths.beside(Path(name), ".samples.jsonl") for name in names[:2] + names[3:]}) == 3
    assert paths.beside(Path("x/temp0.2.json"), ".html") == Path("x/temp0.2.html")
    assert paths.beside(Path("x/temp0.2"), ".html") == Path("x/temp0.2.html")


def test_a_second_run_on_one_output_is_refused_and_a_stale_lock_is_ignored(tmp_path: Path, samples: Path):
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


def test_at_most_one_thread_holds_the_lock(tmp_path: Path):
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


@pytest.mark.slow
def test_samples_of_earlier_settings_are_found_again(tmp_path: Path, checkpoint: Path):
    args = ("score", checkpoint, "--limit", 2, "--max-new-tokens", 4, "--no-html", "--out", tmp_path)
    outputs = [call(*args, "--seed", seed).output for seed in (1, 2, 1, 2)]
    assert ["reused: 2 of 2 samples" in output for output in outputs] == [False, False, True, True]

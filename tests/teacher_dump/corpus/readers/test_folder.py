"""Tests of folders: hidden files, links, special files, and mixtures of sources and tables."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from teacher_dump.corpus.readers.sources import read
from teacher_dump.errors import DumpError
from tests.teacher_dump.corpus.readers.conftest import GOOD, drops, lines


def test_special_files_and_broken_links_are_listed_and_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "package.py").mkdir(parents=True)
    (folder / "package.py" / "inside.py").write_text("x = 1\n")
    os.mkfifo(folder / "fifo.py")
    (folder / "broken.py").symlink_to("nowhere")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "up.py").symlink_to(folder, target_is_directory=True)
    (folder / "memory.py").symlink_to("/proc/self/mem")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.py"))
        texts, listed, counts = drops(folder)
    assert texts == ["x = 1\n"]
    assert {line["path"]: line["filter"] for line in listed} == dict.fromkeys(
        ("fifo.py", "broken.py", "loop.py", "memory.py", "socket.py"), "cannot be read"
    )
    assert counts["links to folders, not followed"] == 2


def test_a_folder_with_sources_and_tables_is_refused_with_both_numbers(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i}.py").write_text(f"x = {i}\n")
    lines(tmp_path, GOOD, name="stray.jsonl")
    with pytest.raises(DumpError, match=r"found 60 Python files and 1 table \(stray.jsonl\), expected one kind"):
        list(read(str(tmp_path)))


@pytest.mark.parametrize("hidden", [".git", ".venv", ".cache"])
def test_hidden_folders_are_never_read_and_skipped_files_are_counted(hidden: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.js").write_text("x")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("y = 1\n")
    (tmp_path / hidden / "deep").mkdir(parents=True)
    lines(tmp_path / hidden / "deep", GOOD)
    (tmp_path / hidden / "b.py").write_text("z = 1\n")
    counts: Counter[str] = Counter()
    assert [r.path for r in read(str(tmp_path), counts)] == ["a.py"]
    assert counts == {
        "hidden files and folders, not read": 1,
        "files of other kinds, not read": 1,
        "Python files in folders of tests, not read": 1,
    }


def test_tables_of_tests_and_of_packages_are_no_mixture(tmp_path: Path) -> None:
    for folder in ("tests/data", "venv/lib/site-packages/pyarrow", "node_modules/x"):
        (tmp_path / folder).mkdir(parents=True)
        lines(tmp_path / folder, GOOD)
    assert [r.path for r in read(str(tmp_path))] == ["good.py"]  # no sources: the table of the tests is the corpus
    (tmp_path / "a.py").write_text("x = 1\n")
    counts: Counter[str] = Counter()
    assert [r.path for r in read(str(tmp_path), counts)] == ["a.py"]
    assert counts == {"folders of packages, not read": 2, "tables in folders of tests, not read": 1}

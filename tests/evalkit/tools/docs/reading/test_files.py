"""Hostile and damaged files: each is skipped, counted and named, and the others are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalkit.tools.docs.reading.files import MAX_FILE_BYTES
from tests.evalkit.tools.docs.reading.packages import build, write_package

GOOD = "def good(x):\n    'Do good.'\n"
HOSTILE = {
    "syntax error": (b"def f(:\n", "is not Python"),
    "NUL byte": (b"x = 1\0\n", "holds a NUL byte"),
    "large": (b"#" * (MAX_FILE_BYTES + 1), "MB, at most 4 are read"),
    "parentheses": (b"x = " + b"(" * 5000 + b")" * 5000, "is not Python|is nested too deeply"),
    "unary operators": (b"x = " + b"-" * 200_000 + b"1", "is not Python|is nested too deeply"),
    "attributes": (b"x = a" + b".a" * 50_000, "is nested too deeply"),
    "sums": (b"x = 1" + b"+1" * 50_000, "is nested too deeply"),
    "blocks": (b"".join(b" " * level + b"if x:\n" for level in range(200)), "is not Python"),
    "not UTF-8": (b"x = '\xff'\n", "is not text"),
    "unknown encoding": (b"# coding: klingon\nx = 1\n", "is not text"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_costs_no_other_its_place(tmp_path: Path, content: bytes, reason: str) -> None:
    built, entries = build(write_package(tmp_path / "lib", good=GOOD, hostile=content))
    assert "lib.good.good" in entries
    [problem] = built.packages[0].problems
    assert problem.startswith(str(tmp_path / "lib" / "hostile.py"))
    assert any(part in problem for part in reason.split("|")), problem
    assert built.packages[0].to_dict()["skipped"] == 1


def test_a_package_whose_init_is_broken_still_has_its_modules(tmp_path: Path) -> None:
    built, entries = build(write_package(tmp_path / "lib", __init__="def f(:", good=GOOD))
    assert "lib.good.good" in entries
    assert len(built.packages[0].problems) == 1


def test_links_that_loop_end(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", good=GOOD, deep__good=GOOD)
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "deep" / "itself").symlink_to(folder / "deep" / "itself")
    (folder / "again.py").symlink_to(folder / "again.py")
    built, entries = build(folder)
    assert {"lib.good.good", "lib.deep.good.good"} <= set(entries)
    problems = " ".join(built.packages[0].problems)
    assert "loop of links" in problems
    assert "again.py: cannot be read" in problems


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", good=GOOD)
    os.mkfifo(folder / "pipe.py")
    (folder / "zero.py").symlink_to("/dev/zero")
    built, entries = build(folder)
    assert "lib.good.good" in entries
    assert sorted(problem.rpartition("/")[2] for problem in built.packages[0].problems) == [
        "pipe.py: is no regular file",
        "zero.py: is no regular file",
    ]


def test_tests_and_names_that_cannot_be_imported_are_left_out(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", good=GOOD, test_good=GOOD, tests__a=GOOD)
    (folder / "not-a-name.py").write_text(GOOD)
    (folder / ".hidden.py").write_text(GOOD)
    built, entries = build(folder)
    assert set(entries) == {"lib", "lib.good", "lib.good.good"}
    assert built.packages[0].problems == ()


def test_a_stub_is_read_where_there_is_no_source(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", both="def f(x): ...\n")
    (folder / "both.pyi").write_text("def f(y): ...\n")
    (folder / "only.pyi").write_text("def g(z): ...\n")
    _, entries = build(folder)
    assert entries["lib.both.f"].signature == "f(x)"
    assert entries["lib.only.g"].signature == "g(z)"

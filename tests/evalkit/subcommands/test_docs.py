"""Tests of `evalkit index-docs` and `evalkit search-docs`."""

from __future__ import annotations

from pathlib import Path

from tests.evalkit.commands import call
from tests.evalkit.tools.docs.reading.packages import write_package


def test_a_folder_is_indexed_and_searched(tmp_path: Path) -> None:
    source = 'def area(outline, *, unit="m"):\n    """Return the surface of a polygon."""\n'
    folder = write_package(tmp_path / "shapes", plane=source, broken="def f(:\n")
    out = tmp_path / "docs.db"
    built = call("index-docs", folder, "--out", out)
    assert built.exit_code == 0, built.output
    assert "shapes: 3 names (2 files read)\nskipped: 1\n" in built.stdout
    assert f"index: {out} (0.0 MB)" in built.stdout
    found = call("search-docs", out, "surface", "of", "polygons", "--limit", 1)
    assert found.stdout == "shapes.plane.area(outline, *, unit='m')\n    Return the surface of a polygon.\n"


def test_many_skipped_files_are_counted_and_named_on_request(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", **{f"broken{number}": "def f(:\n" for number in range(7)})
    brief = call("index-docs", folder, "--out", tmp_path / "docs.db").stdout
    assert "skipped: 7\n" in brief
    assert "and 2 more; --verbose names them" in brief
    verbose = call("index-docs", folder, "--out", tmp_path / "docs.db", "--verbose").stdout
    assert all(f"broken{number}.py: is not Python" in verbose for number in range(7))


def test_errors_are_one_line(tmp_path: Path) -> None:
    out = tmp_path / "docs.db"
    for args, reason in (
        (("index-docs", "no_such_package", "--out", out), "no package of this name is installed"),
        (("search-docs", out, "x"), "cannot be read"),
        (("index-docs", "json", "--out", tmp_path / "docs.db"), ""),
        (("search-docs", out, "zzzzzz"), "nothing in"),
    ):
        result = call(*args)
        assert result.exit_code == (1 if reason else 0)
        assert reason in result.output
        assert "Traceback" not in result.output

"""Names from an import in the sandbox, of modules that may do anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.tools.docs.build import build_index
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.reading.found import FoundNames
from evalkit.tools.docs.reading.imported import _add, _well_formed
from tests.evalkit.tools.docs.reading.packages import Notes, build, write_package

GENERATED = '''
import types
__all__ = ["f", "made", "LIMIT"]
def f(x):
    """From the source."""
exec("def made(y, z=1):\\n    'Made at run time.'")
exec("LIMIT = 7")
'''


def test_generated_names_come_from_the_sandbox(tmp_path: Path) -> None:
    built, entries = build(write_package(tmp_path / "lib", __init__=GENERATED), imports=True)
    assert entries["lib.f"].signature == "f(x)"
    assert entries["lib.made"] == DocsEntry(
        name="lib.made", kind="function", signature="made(y, z=1)", summary="Made at run time."
    )
    assert entries["lib.LIMIT"].signature == "LIMIT = 7"
    assert built.packages[0].num_imported == 1


def test_without_imports_they_are_left_out_and_said_so(tmp_path: Path) -> None:
    built, entries = build(write_package(tmp_path / "lib", __init__=GENERATED), imports=False)
    assert "lib.made" not in entries
    assert "left out, since nothing is imported" in built.packages[0].problems[0]


HOSTILE = {
    "writes": "open({mark!r}, 'w').write('x')",
    "starts a process": "import subprocess; subprocess.run(['touch', {mark!r}])",
    "exits": "import os; os._exit(0)",
    "raises": "raise BaseException('no')",
    "fills memory": "x = bytearray(1 << 40)",
}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_module_is_a_problem_and_changes_nothing(tmp_path: Path, statement: str) -> None:
    mark = tmp_path / "mark"
    source = f"__all__ = ['f', 'made']\ndef f(): 'Do it.'\n{statement.format(mark=str(mark))}\n"
    built, entries = build(write_package(tmp_path / "lib", __init__=source), imports=True)
    assert "lib.f" in entries
    assert not mark.exists()
    assert len(built.packages[0].problems) == 1
    assert "lib: cannot be imported in the sandbox" in built.packages[0].problems[0]


def test_modules_of_python_itself(tmp_path: Path) -> None:
    notes = Notes()
    build_index(["math"], tmp_path / "docs.db", notes)
    assert notes.notes == ["math has compiled or generated names: importing 1 module in the sandbox"]
    with DocsIndex.open(tmp_path / "docs.db") as index:
        assert index.search("gcd", 1)[0].name == "math.gcd"
        assert index.search("greatest common divisor", 1)[0].name == "math.gcd"


MALFORMED = [
    None,
    3,
    "text",
    [3],
    [[]],
    [["a", "b"]],
    [["lib.f", "function", "f()", 3, "1"]],
    [["lib.f", "spell", "", "", ""]],
    [["other.f", "function", "f()", "", "1"]],
    [["library.f", "function", "f()", "", "1"]],
]


@pytest.mark.parametrize("rows", MALFORMED)
def test_answers_that_are_not_rows_are_dropped(rows: object) -> None:
    assert _well_formed("lib", rows) == []


def test_paths_of_one_object_share_an_entry() -> None:
    found = FoundNames()
    found.add("source f", "lib.f", "function", signature="f(x)", docstring="Do it.")
    _add(
        [
            ["lib.alias.f", "function", "f(x)", "Do it.", "f 1"],
            ["lib.f", "function", "f(x)", "Do it.", "f 1"],
            ["lib.g", "function", "g()", "Other.", "g 2"],
        ],
        found,
    )
    assert {name.entry.name: set(name.paths) for name in found.indexed()} == {
        "lib.f": {"lib.f", "lib.alias.f"},
        "lib.g": {"lib.g"},
    }

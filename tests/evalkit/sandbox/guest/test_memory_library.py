"""Tests of libraries that programs import: found, isolated from each other, and neither readable nor writable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox.execute import ProgramCalls, execute_calls
from evalkit.sandbox.guest.memory_library import read_sources
from evalkit.sandbox.pool import Pool

PROGRAM = "import mylib\nfrom mylib.deep import inner\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "mylib"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import tools\n")
    (folder / "tools.py").write_text("LIMIT = 3\ndef twice(x):\n    return 2 * x\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "inner.py").write_text("from ..tools import twice\ndef four(x):\n    return twice(twice(x))\n")
    return folder


@pytest.fixture(scope="module")
def pool_with_library(library: Path) -> Iterator[Pool]:
    with Pool(workers=1, libraries=[library]) as pool:
        yield pool


def outcomes(pool: Pool, *calls: str, program: str = PROGRAM, state: str = "process") -> list[tuple[str, str]]:
    [result] = execute_calls([ProgramCalls(program=program, calls=calls)], pool=pool, state=state)
    return [(call.outcome, call.text) for call in result.calls]


def test_sources_have_dotted_names(library: Path) -> None:
    assert list(read_sources(str(library))) == ["mylib", "mylib.deep", "mylib.deep.inner", "mylib.tools"]


def test_programs_import_the_library_and_others_do_not(pool: Pool, pool_with_library: Pool) -> None:
    assert outcomes(pool_with_library, "mylib.tools.twice(4)", "inner.four(1)") == [("value", "8"), ("value", "4")]
    assert outcomes(pool, "1") == [("exception", "ModuleNotFoundError: No module named 'mylib'")]


def test_programs_with_numpy_have_the_library_too(pool_with_library: Pool) -> None:
    program = "import numpy\nimport mylib\n"
    assert outcomes(pool_with_library, "int(numpy.ones(2).sum()) + mylib.tools.LIMIT", program=program) == [
        ("value", "5")
    ]


def test_a_change_of_the_library_does_not_reach_another_program(pool_with_library: Pool) -> None:
    assert outcomes(pool_with_library, "setattr(mylib.tools, 'LIMIT', 9) or mylib.tools.LIMIT") == [("value", "9")]
    assert outcomes(pool_with_library, "mylib.tools.LIMIT") == [("value", "3")]


def test_the_files_of_the_library_are_closed(pool_with_library: Pool, library: Path) -> None:
    if not any(layer.on for layer in pool_with_library.layers if layer.name == "landlock"):
        pytest.skip("needs Landlock")
    path = str(library / "tools.py")
    denied = outcomes(pool_with_library, f"open({path!r}).read()", f"open({path!r}, 'a')")
    assert [outcome for outcome, _ in denied] == ["sandbox_denied", "sandbox_denied"]


@pytest.mark.parametrize(
    ("source", "reason"), [("1/0\n", "mylib cannot be imported: ZeroDivisionError"), (None, "No such file")]
)
def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path, source: str | None, reason: str) -> None:
    folder = tmp_path / "mylib"
    folder.mkdir()
    if source is None:
        (folder / "gone.py").symlink_to(tmp_path / "missing.py")
    else:
        (folder / "__init__.py").write_text(source)
    with pytest.raises(EvalError, match=reason):
        Pool(workers=1, libraries=[folder])

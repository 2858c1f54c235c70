"""Folders that programs may read and import from."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.sandbox.execute import CallResult, ProgramCalls, execute_calls
from evalkit.sandbox.pool import Pool


def run(program: str, *, import_paths: list[Path]) -> CallResult:
    """Return the result of the program's `f()`."""
    with Pool(workers=1, import_paths=import_paths) as pool:
        (result,) = execute_calls([ProgramCalls(program=program, calls=("f()",))], pool=pool)
    return result.calls[0]


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_program_imports_from_a_library_and_cannot_change_it(tmp_path: Path, mode: int) -> None:
    """A folder that is closed to user nobody is readable, too."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "frobs.py").write_text("def frob(x):\n    return x + 1\n")
    folder.chmod(mode)
    assert run("from frobs import frob\ndef f():\n    return frob(1)", import_paths=[folder]).value() == 2
    written = run(f"def f():\n    open({str(folder / 'new')!r}, 'w')", import_paths=[folder])
    assert written.exception == "PermissionError"
    assert [path.name for path in folder.iterdir()] == ["frobs.py"]


def test_other_folders_stay_closed(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "secret.py").write_text("x = 1\n")
    with Pool(workers=1) as pool:
        if not any(layer.on for layer in pool.layers if layer.name == "landlock"):
            pytest.skip("needs Landlock")
    program = f"import sys\nsys.path.append({str(tmp_path)!r})\ndef f():\n    import secret"
    assert run(program, import_paths=[tmp_path / "library"]).outcome == "exception"
    assert run("def f():\n    import frobs", import_paths=[]).exception == "ModuleNotFoundError"

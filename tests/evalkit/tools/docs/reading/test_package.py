"""Packages by name and by folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tools.docs.reading.package import find_packages
from tests.evalkit.tools.docs.reading.packages import write_package


def names(argument: str) -> list[str]:
    """Return the names of the packages that an argument stands for."""
    return [package.name for package in find_packages(argument)]


def test_an_installed_package_has_a_version() -> None:
    [package] = find_packages("numpy")
    assert package.name == "numpy"
    assert package.version[0].isdigit()
    assert package.path is not None
    assert package.import_path == package.path.parent


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("scikit-learn", "sklearn"), ("griffelib", "griffe"), ("json", "json"), ("math", "math"), ("sys", "sys")],
)
def test_distributions_and_parts_of_python_are_found(argument: str, expected: str) -> None:
    assert expected in names(argument)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path / "project" / "src" / "mylib")
    write_package(tmp_path / "flat" / "one")
    (tmp_path / "flat" / "two.py").write_text("x = 1\n")
    (tmp_path / "flat" / "setup.py").write_text("raise SystemExit\n")
    write_package(tmp_path / "flat" / "tests")
    assert names(str(tmp_path / "project" / "src" / "mylib")) == ["mylib"]
    assert names(str(tmp_path / "project")) == ["mylib"]
    assert names(str(tmp_path / "flat")) == ["one", "two"]
    assert names(str(tmp_path / "flat" / "two.py")) == ["two"]
    monkeypatch.chdir(tmp_path / "flat")
    assert names("./one") == names("one") == ["one"]
    assert names(".") == ["one", "two"]


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="no package of this name"):
        find_packages("no_such_package")
    with pytest.raises(EvalError, match="no such folder"):
        find_packages(str(tmp_path / "absent"))
    with pytest.raises(EvalError, match="holds no Python package"):
        find_packages(str(tmp_path))

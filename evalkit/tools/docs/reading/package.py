"""Find packages by name or folder, without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.text import visible


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package or module to index."""

    name: str
    """The name that programs import."""
    path: Path | None
    """Its folder or file; None if it has neither, such as `math`."""
    version: str = ""
    """Version of the distribution that holds it; empty if it is not installed."""

    @property
    def import_path(self) -> Path | None:
        """The folder from which it is imported; None if it is part of Python."""
        return self.path.parent if self.path is not None else None


def find_packages(argument: str) -> list[Package]:
    """Return what a name or folder of the command line stands for.

    Args:
        argument: The import name of an installed package, the name of a distribution such as `scikit-learn`, a `.py`
            file, the folder of a package, or a folder that holds packages and modules.

    Raises:
        EvalError: There is no such package or folder, or the folder holds no Python.
    """
    if "/" in argument or argument.startswith(".") or argument.endswith(".py"):
        return _in_folder(Path(argument).expanduser())
    if found := _installed(argument):
        return found
    if Path(argument).exists():
        return _in_folder(Path(argument))
    raise EvalError(
        f"{visible(argument)}: no package of this name is installed, and there is no such folder; install it into the "
        f"environment of {sys.executable}, or name a folder"
    )


def _installed(name: str) -> list[Package]:
    """Return the package of this import name, else the packages of this distribution; none if there is neither."""
    if name.isidentifier() and (package := _importable(name)) is not None:
        return [package]
    wanted = _normalised(name)
    names = [top for top, owners in _owners().items() if wanted in map(_normalised, owners) and top.isidentifier()]
    return [package for top in sorted(names) if (package := _importable(top)) is not None]


def _importable(name: str) -> Package | None:
    """Return the package that `import NAME` would load; finding one at the top runs none of its code."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        path: Path | None = Path(next(iter(spec.submodule_search_locations)))
    else:
        path = Path(spec.origin) if spec.has_location and spec.origin else None
    owners = _owners().get(name, [])
    return Package(name=name, path=path, version=importlib.metadata.version(owners[0]) if owners else "")


@cache
def _owners() -> dict[str, list[str]]:
    """Return the distributions of each top-level module."""
    return {name: list(owners) for name, owners in importlib.metadata.packages_distributions().items()}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _in_folder(path: Path) -> list[Package]:
    """Return the package that `path` is, or the packages and modules in it.

    Raises:
        EvalError: There are none.
    """
    path = path.absolute()
    if path.suffix == ".py" and path.is_file():
        return [Package(name=path.stem, path=path)]
    if not path.is_dir():
        raise EvalError(f"{path}: no such folder or .py file; name a package or a folder that holds one")
    path = path.resolve()
    if (path / "__init__.py").exists():
        return [Package(name=path.name, path=path)]
    for folder in (path, path / "src"):
        children = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [child for child in children if _is_module(child)]
        if found:
            return [Package(name=child.stem if child.is_file() else child.name, path=child) for child in found]
    raise EvalError(f"{path}: holds no Python package or module; name the folder of a package")


def _is_module(path: Path) -> bool:
    if path.is_dir():
        return path.name.isidentifier() and path.name != "tests" and (path / "__init__.py").exists()
    is_script = path.name in ("setup.py", "conftest.py") or path.name.startswith("test_")
    return path.suffix == ".py" and path.stem.isidentifier() and not is_script and path.is_file()

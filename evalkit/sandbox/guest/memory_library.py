"""Libraries for programs, in memory: a guest imports them, but reads no file and can change none.

The sources are read before a zygote gives up its rights and imported after that, once, so every guest finds the modules
ready. What a program changes in them is its own copy and goes with it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from typing import Any


def read_sources(folder: str) -> dict[str, str]:
    """Return the sources of all modules of a package by their dotted names.

    Args:
        folder: The folder of the package: `__init__.py`, modules, and packages in it.

    Raises:
        OSError: It cannot be read.
    """
    sources, root = {}, Path(folder)
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        sources[".".join(parts[:-1] if is_package else parts)] = path.read_text(encoding="utf-8")
    return sources


class MemoryLibrary(MetaPathFinder, InspectLoader):
    """Finds and loads the modules of one package from their sources."""

    def __init__(self, sources: dict[str, str]) -> None:
        """Serve the modules of `sources`, as `read_sources` returns them."""
        self._sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return how to load a module; None if it is not one of this package."""
        if fullname not in self._sources:
            return None
        return spec_from_loader(fullname, self, origin="memory", is_package=self.is_package(fullname))

    def get_source(self, fullname: str) -> str:
        """Return the source of a module."""
        return self._sources[fullname]

    def is_package(self, fullname: str) -> bool:
        """Return whether modules of this package are inside `fullname`."""
        return "." not in fullname or any(name.startswith(f"{fullname}.") for name in self._sources)


def install(sources: dict[str, str]) -> None:
    """Let this process and its forks import a package, and import all of it.

    Raises:
        Exception: Its code raised.
    """
    sys.meta_path.append(MemoryLibrary(sources))
    for name in sources:
        importlib.import_module(name)

"""Build the library: boltons with other names, checked by the examples of its documentation.

Nothing of boltons is part of this project. Its installed sources are read, not imported; `SOURCES_SHA256` pins them.
All names of modules, classes, functions, arguments and variables get words without a meaning, in code and
documentation. Comments, links and the package's own name go. The licence (BSD, 3 clauses) stays in the built folder.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.tasks.private_api.documentation import DocumentationRenamer
from evalkit.tasks.private_api.symbols import find_symbols
from evalkit.tasks.private_api.transform import Renaming, rename
from evalkit.tasks.private_api.words import Words

PACKAGE, VERSION = "boltons", "26.2.0"
MODULES = (
    "cacheutils", "dictutils", "iterutils", "listutils", "mathutils", "queueutils", "setutils", "strutils",
    "tableutils", "timeutils", "typeutils",
)  # fmt: skip
"""Modules that are renamed: those that compute. They import each other and the standard library only."""
SOURCES_SHA256 = "bb85982d48c1fa8f233602edf8648df869f9c50e7c3f714bf33d63310aee8e04"
"""Digest of the sources of `MODULES` and of the licence, in this order."""
_CHECK_S = 120.0
_RUN_EXAMPLES = """
import doctest, importlib, json, sys
sys.path.insert(0, sys.argv[1])
counts = {}
for name in sys.argv[2:]:
    result = doctest.testmod(importlib.import_module(name), report=False)
    counts[name] = [result.attempted, result.failed]
print("\\n" + json.dumps(counts))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibrarySources:
    """The installed package."""

    folder: Path
    modules: Mapping[str, str]
    """Sources by the name of the module."""
    licence: str


def read_sources() -> LibrarySources:
    """Return the sources of the installed package.

    Raises:
        EvalError: It is not installed, or is not the pinned release.
    """
    advice = f"run 'pip install {PACKAGE}=={VERSION}'"
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EvalError(f"private-api is unavailable: expected the package {PACKAGE}; {advice}")
    folder = Path(spec.origin).parent
    try:
        modules = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
        licence = _licence()
    except (OSError, UnicodeDecodeError) as error:
        raise EvalError(f"{folder}: is not {PACKAGE} {VERSION} ({error}); {advice}") from error
    digest = digest_of([*modules.values(), licence])
    if digest != SOURCES_SHA256:
        raise EvalError(f"{folder}: sha256 {digest[:12]}.. is not that of {PACKAGE} {VERSION}; {advice}")
    return LibrarySources(folder=folder, modules=modules, licence=licence)


def _licence() -> str:
    """Return the text of the package's licence.

    Raises:
        FileNotFoundError: The package has none.
    """
    for path in importlib.metadata.files(PACKAGE) or []:
        if path.name == "LICENSE":
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"no LICENSE in {PACKAGE}")


def digest_of(texts: list[str]) -> str:
    """Return the sha256 of texts, in their order and with their boundaries."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def plan_renaming(sources: LibrarySources, *, seed: int) -> Renaming:
    """Return the new names that `seed` selects."""
    symbols = find_symbols(PACKAGE, {name: ast.parse(source) for name, source in sources.modules.items()})
    return Renaming(symbols=symbols, words=Words(seed=seed, taken=symbols.all))


def write_library(folder: Path, sources: LibrarySources, renaming: Renaming) -> Path:
    """Write the renamed package and the licence into `folder`, and check the package; return the package's folder.

    Raises:
        EvalError: An example of the documentation that passes in the original fails in the renamed package.
    """
    package = folder / renaming.name(PACKAGE)
    package.mkdir(parents=True)
    for name, source in sources.modules.items():
        renamer = DocumentationRenamer(renaming, module=name)
        tree = rename(ast.parse(source), renaming, module=name, docstring=renamer.docstring)
        (package / f"{renaming.name(name)}.py").write_text(ast.unparse(tree) + "\n", encoding="utf-8")
    imports = "".join(f"from . import {renaming.name(name)}\n" for name in MODULES)
    (package / "__init__.py").write_text(f'"""A library of utilities."""\n\n{imports}', encoding="utf-8")
    (folder / "LICENSE").write_text(sources.licence, encoding="utf-8")
    _check_examples(folder, sources, renaming)
    return package


def _check_examples(folder: Path, sources: LibrarySources, renaming: Renaming) -> None:
    """Run the examples of both packages, each in a process of its own, and compare."""
    old = _run_examples(sources.folder.parent, [f"{PACKAGE}.{name}" for name in MODULES])
    new = _run_examples(folder, [f"{renaming.name(PACKAGE)}.{renaming.name(name)}" for name in MODULES])
    for name, (attempted, failed), (new_attempted, new_failed) in zip(MODULES, old, new, strict=True):
        if new_attempted != attempted or new_failed > failed:
            raise EvalError(
                f"the renamed library is broken: {new_failed} of {new_attempted} examples of {name} fail, "
                f"{failed} of {attempted} before the renaming; choose another --seed and report this"
            )


def _run_examples(folder: Path, modules: list[str]) -> list[tuple[int, int]]:
    """Return the numbers of examples that ran and that failed, for each module."""
    command = [sys.executable, "-I", "-B", "-c", _RUN_EXAMPLES, str(folder), *modules]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_S, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise EvalError(f"the library cannot be imported: {result.stderr.strip().splitlines()[-1]}; report this")
    counts = json.loads(result.stdout.splitlines()[-1])
    return [tuple(counts[name]) for name in modules]

"""Public names that no source holds, from an import in the sandbox: compiled modules, and names made when they load.

Importing a package runs its code. It runs in a guest with every layer of confinement, which may read the folder that
the package is in, and nothing that it returns is trusted: rows that are not text are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evalkit.sandbox.execute import CallLimits, ProgramCalls, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.tools.docs.entry import KINDS
from evalkit.tools.docs.reading.found import FoundNames
from evalkit.tools.docs.reading.package import Package

_LIMITS = CallLimits(call_cpu_s=60.0, program_cpu_s=240.0, memory_bytes=4 << 30, value_bytes=12 << 20, most_timeouts=2)
_PROGRAM = Path(__file__).with_name("describe.py")


def read_imported(package: Package, modules: list[str], found: FoundNames, *, note: Callable[[str], None]) -> list[str]:
    """Import modules in the sandbox, and add the names that `found` has no docstring of.

    Args:
        package: The package that holds them.
        modules: Full names of public modules.
        found: What the sources told.
        note: Receives a line where a layer of the sandbox is off.

    Returns:
        One line for each module that could not be imported.
    """
    folders = [package.import_path] if package.import_path is not None else []
    calls = tuple(f"describe({module!r})" for module in modules)
    problems = []
    with Pool(workers=1, import_paths=folders) as pool:
        if off := [layer.name for layer in pool.layers if not layer.on]:
            note(f"warning: {package.name} is imported in a sandbox without {', '.join(off)}; see 'evalkit doctor'")
        program = ProgramCalls(program=_PROGRAM.read_text(encoding="utf-8"), calls=calls)
        [result] = execute_calls([program], pool=pool, limits=_LIMITS, state="shared")
    rows = []
    for module, call in zip(modules, result.calls, strict=True):
        if call.has_form:
            rows += _well_formed(module, call.value())
        else:
            problems.append(f"{module}: cannot be imported in the sandbox ({call.text or call.outcome})")
    _add(rows, found)
    return problems


def _well_formed(module: str, rows: Any) -> list[list[str]]:
    """Return the rows of one module that are what `describe` returns: five texts, about the module or a name in it."""
    return [
        row
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, list)
        and len(row) == 5
        and all(isinstance(text, str) for text in row)
        and (row[0] == module or row[0].startswith(f"{module}."))
        and row[1] in KINDS
    ]


def _add(rows: list[list[str]], found: FoundNames) -> None:
    """Add what tells something new: names without a docstring so far, and further paths of known objects."""
    known = {identity: found.identity(path) for path, _, _, _, identity in rows if not found.lacks(path)}
    for path, kind, signature, docstring, identity in rows:
        if found.lacks(path) and (docstring or path not in found):
            found.drop(path)
            own = known.get(identity) or f"import {identity}"
            found.add(own, path, kind, signature=signature, docstring=docstring)

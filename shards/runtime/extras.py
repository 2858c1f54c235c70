"""Say which extra of this package installs a module that is missing."""

from __future__ import annotations

import importlib.metadata
import re

DISTRIBUTION = "teacherless"
_EXTRA_OF_PROGRAM = {"teacher-dump": "dump", "student-train": "train", "evalkit": "eval"}
"""Extra that has what a program always needs; it is named first if it has the module."""
_COLLECTIONS = ("dev", "docs", "release")
"""Extras for work on the project; no command needs them."""
_MODULE_OF = {"griffelib": "griffe", "scikit-learn": "sklearn"}
"""Modules with another name than their distribution."""
_REQUIREMENT = re.compile(r"([\w.-]+).*?(?:extra == [\"']([\w.-]+)[\"'])?\s*$")


def missing_module_line(error: ModuleNotFoundError, program: str) -> str | None:
    """Return one line on a missing module and how to install it, None if no extra has the module: then it is a bug.

    Args:
        error: The failed import.
        program: Name of the command that runs, such as "student-train".
    """
    module = (error.name or "").partition(".")[0]
    extras = [extra for name, extra in _requirements() if _module_of(name) == module]
    if not extras:
        return None
    if None in extras:
        return f"{module} is not installed, and {DISTRIBUTION} needs it; run pip install {DISTRIBUTION}"
    own = _EXTRA_OF_PROGRAM.get(program)
    extra = own if own in extras else extras[0]
    return f"{module} is not installed, and {program} needs it here; run pip install '{DISTRIBUTION}[{extra}]'"


def _requirements() -> list[tuple[str, str | None]]:
    """Return the name of each required distribution, and the extra that requires it, None if all do."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []
    pairs = [match.groups() for line in lines if (match := _REQUIREMENT.match(line))]
    return [(name, extra) for name, extra in pairs if extra not in _COLLECTIONS]


def _module_of(distribution: str) -> str:
    name = distribution.lower().replace("_", "-").replace(".", "-")
    return _MODULE_OF.get(name, name.replace("-", "_"))

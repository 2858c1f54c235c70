"""The program that describes an imported module, for guests of the sandbox.

Its source is sent to them, so it imports nothing of this project. What it returns may be false, since the module that
it imports may do anything; the limits here only keep honest answers short.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from typing import Any

MAX_CHARS = 20_000
"""Characters of a docstring."""


def describe(module_name: str) -> list[list[str]]:
    """Import a module and return a row for each of its public names and those of its classes.

    Returns:
        Rows of path, kind, signature, docstring, and an identity that all paths of an object share.
    """
    module = importlib.import_module(module_name)
    top = module_name.partition(".")[0]
    rows = [row_of(module, module_name, "module")]
    listed = getattr(module, "__all__", None)
    for name in list(listed) if listed is not None else sorted(vars(module)):
        try:
            value = getattr(module, name)
        except AttributeError:
            continue
        owner = str(getattr(value, "__module__", None) or top).partition(".")[0]
        is_ours = listed is not None or (not name.startswith("_") and owner == top)
        if not is_ours or isinstance(value, types.ModuleType):
            continue
        if not inspect.isclass(value):
            rows.append(row_of(value, f"{module_name}.{name}", "function" if callable(value) else "attribute"))
            continue
        rows.append(row_of(value, f"{module_name}.{name}", "class"))
        for member_name, member in vars(value).items():
            if not member_name.startswith("_"):
                kind = "method" if callable(member) or isinstance(member, (classmethod, staticmethod)) else "property"
                rows.append(row_of(member, f"{module_name}.{name}.{member_name}", kind))
    return rows


def row_of(value: Any, path: str, kind: str) -> list[str]:
    """Return the row of one object."""
    name = path.rpartition(".")[2]
    text = getattr(value, "__doc__", None)
    if not isinstance(text, str) or (kind == "attribute" and text == type(value).__doc__):
        text = ""
    return [path, kind, signature_of(value, name, kind), text[:MAX_CHARS], f"{name} {id(value)}"]


def signature_of(value: Any, name: str, kind: str) -> str:
    """Return the signature; the name alone where the object tells none, and the value of a short constant."""
    if kind == "attribute":
        text = repr(value) if isinstance(value, (bool, int, float, str)) else ""
        return f"{name} = {text}" if text and len(text) < 80 else name
    if kind in ("module", "property"):
        return ""
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<([\w.]+)[^<>]*>", r"\1", text)  # defaults such as <no value>
    text = re.sub(r"^\((?:self|cls)(?:, /)?(?:, )?", "(", text) if kind == "method" else text
    return name + text[:400]

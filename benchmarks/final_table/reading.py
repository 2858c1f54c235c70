"""Build frozen dataclasses from the values of a TOML file, and refuse what they do not expect by the key's path."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


class RecipeError(ValueError):
    """A recipe that a user can mend. The message names the key, what was found, and what was expected."""


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def build(kind: Any, value: Any, path: str) -> Any:
    """Return a value of a type.

    Args:
        kind: A dataclass, int, float, str, bool, `tuple[X, ...]` or `dict[str, X]`.
        value: The value that tomllib read.
        path: Path of its key, for errors.

    Raises:
        RecipeError: The value has another type, or a key is unknown or missing.
    """
    if is_dataclass(kind):
        return _build_class(kind, _table(value, path), path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{path}: found {value!r}, expected a list")
        return tuple(build(arguments[0], item, f"{path}[{number}]") for number, item in enumerate(value))
    if origin is dict:
        return {key: build(arguments[1], item, _join(path, key)) for key, item in _table(value, path).items()}
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"{path}: found {value!r}, expected {_NAMES[kind]}")
    return kind(value)


def _build_class(kind: Any, table: Mapping[str, Any], path: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    if unknown := [key for key in table if key not in known]:
        raise RecipeError(f"{_join(path, unknown[0])}: is no key of a recipe; expected one of {', '.join(known)}")
    hints = typing.get_type_hints(kind)
    built = {}
    for name, item in known.items():
        if name in table:
            built[name] = build(hints[name], table[name], _join(path, name))
            _check_field(item, built[name], _join(path, name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise RecipeError(f"{_join(path, name)}: is missing")
    return kind(**built)


def _check_field(item: Field[Any], value: Any, path: str) -> None:
    """Check the limits that a field's metadata names: `least`, and `choices` of a text, of items or of keys."""
    least, choices = item.metadata.get("least"), item.metadata.get("choices")
    if least is not None and value < least:
        raise RecipeError(f"{path}: found {value!r}, expected at least {least}")
    if choices is None:
        return
    found = [value] if isinstance(value, str) else list(value)
    if wrong := [text for text in found if text not in choices]:
        raise RecipeError(f"{path}: found {wrong[0]!r}, expected of {', '.join(choices)}")
    if len(set(found)) < len(found):
        raise RecipeError(f"{path}: found a name twice in {found}, expected each once")


def _table(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: found {value!r}, expected a table")
    return value


def _join(path: str, key: str) -> str:
    """Return the path of a key: `recipe.toml: budgets.steps`."""
    return f"{path}.{key}" if ": " in path else f"{path}: {key}"

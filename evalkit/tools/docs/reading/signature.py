"""Signatures as one line, from griffe's parameters."""

from __future__ import annotations

from typing import Any

from griffe import ParameterKind

MAX_CHARS = 160
"""A longer signature is shown without annotations."""
_MAX_DEFAULT_CHARS = 60


def function_signature(function: Any, name: str, *, bound: bool) -> str:
    """Return the signature of a function.

    Args:
        function: griffe's function, or a class, whose parameters are those of `__init__`.
        name: The name to show.
        bound: Leave out the first parameter, `self` or `cls`.

    Returns:
        The signature; `name(...)` for a class whose `__init__` is assigned and not defined, as some in pandas.
    """
    try:
        parameters = list(function.parameters)[1 if bound else 0 :]
    except AttributeError:  # of griffe, which takes `__init__` for a function
        return f"{name}(...)"
    returns = getattr(function, "returns", None)
    full = f"{name}({', '.join(_parameters(parameters, annotate=True))})"
    full += f" -> {returns}" if returns is not None else ""
    if len(full) <= MAX_CHARS:
        return full
    return f"{name}({', '.join(_parameters(parameters, annotate=False))})"


def _parameters(parameters: list[Any], *, annotate: bool) -> list[str]:
    """Return each parameter, with the marks of positional-only and keyword-only ones."""
    parts = []
    kinds = [parameter.kind for parameter in parameters]
    has_star = ParameterKind.var_positional in kinds
    for position, parameter in enumerate(parameters):
        if parameter.kind is ParameterKind.keyword_only and not has_star:
            parts.append("*")
            has_star = True
        parts.append(_parameter(parameter, annotate=annotate))
        is_last = kinds[position + 1 : position + 2] != [ParameterKind.positional_only]
        if parameter.kind is ParameterKind.positional_only and is_last:
            parts.append("/")
    return parts


def _parameter(parameter: Any, *, annotate: bool) -> str:
    stars = {ParameterKind.var_positional: "*", ParameterKind.var_keyword: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    has_annotation = annotate and parameter.annotation is not None
    text += f": {parameter.annotation}" if has_annotation else ""
    if parameter.default is None or stars:
        return text
    default = str(parameter.default)
    default = default if len(default) <= _MAX_DEFAULT_CHARS else "..."
    return f"{text} = {default}" if has_annotation else f"{text}={default}"

"""Command-line options generated from the fields of a settings dataclass.

A field with `metadata={"help": ...}` becomes an option with the field's type and default. Further keys of the metadata:
`option`, its name where it is not the field's; `metavar`; `choices`; `default_text`, shown in place of the default. A
field that is itself a settings dataclass contributes its own fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings")


def options_from(settings: type) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options of a settings dataclass to a click command."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(list(_options(settings))):
            command = option(command)
        return command

    return decorate


def build_settings(settings: type[_Settings], parameters: dict[str, Any]) -> _Settings:
    """Return the settings that a command's parameters give.

    Args:
        settings: The dataclass.
        parameters: Values by field name, those of nested settings at the same level. Fields without one keep their
            default.

    Raises:
        DumpError: A value is out of range.
    """
    hints = get_type_hints(settings)
    values = {}
    for item in fields(settings):  # type: ignore[arg-type]  # mypy does not know that the type is a dataclass
        if is_dataclass(hints[item.name]):
            values[item.name] = build_settings(hints[item.name], parameters)
        elif item.name in parameters:
            values[item.name] = parameters[item.name]
    return settings(**values)


def _options(settings: type) -> Iterator[Callable[[Any], Any]]:
    hints = get_type_hints(settings)
    for item in fields(settings):
        if is_dataclass(hints[item.name]):
            yield from _options(hints[item.name])
        elif "help" in item.metadata:
            yield _option(item, hints[item.name])


def _option(item: Field[Any], hint: Any) -> Callable[[Any], Any]:
    name = item.metadata.get("option", f"--{item.name.replace('_', '-')}")
    help_text = item.metadata["help"]
    if hint is bool:
        return click.option(name, item.name, is_flag=True, help=help_text)
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]  # the type without `| None`
    return click.option(
        name,
        item.name,
        type=click.Choice(item.metadata["choices"]) if "choices" in item.metadata else kinds[0],
        default=item.default,
        show_default=item.metadata.get("default_text", True),
        metavar=item.metadata.get("metavar"),
        help=help_text,
    )

"""Command-line options generated from the fields of a settings dataclass.

A field with `metadata={"help": ...}` becomes an option with the field's type and default. Further keys of the metadata:
`option`, its name where it is not the field's; `metavar`; `choices`, where not every value is accepted; `default_text`,
shown in place of the default. A tuple becomes an option that can be given several times. A field that is itself a
settings dataclass contributes its own fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings")


def options_from(settings: type, *, negations: bool = False) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options of a settings dataclass to a click command.

    Args:
        settings: The dataclass.
        negations: A field that is true or false becomes `--name/--no-name`, which can also switch off what is on by
            default or in a record. Otherwise it becomes the flag `--name`.
    """

    def decorate(command: _Command) -> _Command:
        for option in reversed(list(_options(settings, negations=negations))):
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
        Exception: What the dataclass raises for a value that is out of range.
    """
    hints = get_type_hints(settings)
    values = {}
    for item in fields(settings):  # type: ignore[arg-type]  # mypy does not know that the type is a dataclass
        if is_dataclass(hints[item.name]):
            values[item.name] = build_settings(hints[item.name], parameters)
        elif item.name in parameters:
            values[item.name] = parameters[item.name]
    return settings(**values)


def _options(settings: type, *, negations: bool) -> Iterator[Callable[[Any], Any]]:
    hints = get_type_hints(settings)
    for item in fields(settings):
        if is_dataclass(hints[item.name]):
            yield from _options(hints[item.name], negations=negations)
        elif "help" in item.metadata:
            yield _option(item, hints[item.name], negations=negations)


def _option(item: Field[Any], hint: Any, *, negations: bool) -> Callable[[Any], Any]:
    keys = item.metadata
    name = keys.get("option", f"--{item.name.replace('_', '-')}")
    if hint is bool and not negations:
        return click.option(name, item.name, is_flag=True, help=keys["help"])
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]  # the type without `| None`
    return click.option(
        f"{name}/--no-{name.removeprefix('--')}" if hint is bool else name,
        item.name,
        type=click.Choice(keys["choices"]) if keys.get("choices") else kinds[0],
        default=item.default,
        multiple=get_origin(hint) is tuple,
        show_default=keys.get("default_text", True),
        metavar=keys.get("metavar"),
        help=keys["help"],
    )

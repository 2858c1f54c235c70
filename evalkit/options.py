"""Types of the command line's parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from evalkit.text import visible


class UserPath(click.Path):
    """A path in which a leading `~` is the user's home, also after an `=`, where shells do not expand it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the expanded path; an empty one and an unknown user are usage errors."""
        if not str(value):
            self.fail("is empty; name a file or folder", param, ctx)
        try:
            path = Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()
        except RuntimeError:
            self.fail(f"{visible(str(value))}: there is no such user here; write the path out", param, ctx)
        if "~" in path.parts and not path.exists():
            self.fail(f"{visible(str(value))}: holds a folder ~; write the path out", param, ctx)
        return path


class CheckpointName(click.ParamType["str"]):
    """A folder, in which a leading `~` is the user's home, or a hub id."""

    name = "checkpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, with the home folder expanded; an empty one is a usage error."""
        text = str(value)
        if not text.strip():
            self.fail("is empty; name a folder or hub id", param, ctx)
        return str(UserPath().convert(text, param, ctx)) if text.startswith("~") else text


class TaskNames(click.ParamType["tuple[str, ...]"]):
    """Names of benchmarks, separated by commas."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the distinct names in their order; an empty list is a usage error."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))
        if not names:
            self.fail("names no benchmark; expected one such as humaneval", param, ctx)
        return names


class CommaSeparated(click.ParamType["tuple[str, ...]"]):
    """Names separated by commas; the command checks them."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the distinct names in their order."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))

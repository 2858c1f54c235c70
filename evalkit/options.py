"""Types of the command line's parameters, and the options of all commands that generate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from evalkit.request import DEPENDENT_SETTINGS, without_effect
from evalkit.text import visible
from shards.runtime.machine import DTYPES

_Command = TypeVar("_Command", bound=Callable[..., Any])
COUNT = click.IntRange(min=1)
"""Type of an option that counts something."""


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


def explicit_options(ctx: click.Context, *names: str) -> list[str]:
    """Return the options of those parameters of a command that the user has given."""
    explicit = {name for name in names if ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)}
    return [option.opts[0] for option in ctx.command.params if option.name in explicit]


def refuse_dependent_options(ctx: click.Context) -> None:
    """Refuse options that have no effect because the one that they depend on is off.

    Raises:
        click.UsageError: There is such an option.
    """
    for names, needed, is_on in DEPENDENT_SETTINGS:
        if (options := explicit_options(ctx, *names)) and not any(ctx.params.get(name) for name in is_on):
            raise click.UsageError(without_effect(options[0], needed))


_GENERATION_OPTIONS = (
    click.option(
        "--protocol", help="Prompt and sampling settings; see 'evalkit protocols'. [default: the benchmark's]"
    ),
    click.option("--engine", default="auto", show_default=True, help="auto, vllm or transformers."),
    click.option("--max-new-tokens", type=int, help="Maximum length of an answer in tokens. [default: the protocol's]"),
    click.option("--n", "num_samples", type=COUNT, help="Answers per problem. [default: the protocol's]"),
    click.option("--temperature", type=float, help="Sampling temperature; 0 is greedy. [default: the protocol's]"),
    click.option("--top-p", type=float, help="Probability mass to sample from. [default: the protocol's]"),
    click.option("--batch-size", type=COUNT, help="Answers generated concurrently. [default: by engine and device]"),
    click.option(
        "--dtype",
        type=click.Choice([*DTYPES, "float16"]),
        default="auto",
        show_default=True,
        help="Type of weights and arithmetic. auto: bfloat16 where the GPU or the processor computes in it, else "
        "float32.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of sampling."),
)


def generation_options(command: _Command) -> _Command:
    """Add the options that decide what is generated and how."""
    for option in reversed(_GENERATION_OPTIONS):
        command = option(command)
    return command


_TOOL_OPTIONS = (
    click.option(
        "--tools",
        default="",
        type=CommaSeparated(),
        help="Tools that the model may call while it writes, separated by commas: python (an interpreter in the "
        "sandbox), docs (a search in documentation).",
    ),
    click.option(
        "--tool-first",
        is_flag=True,
        help="Begin each answer with a call of the first tool, which a small model may not open itself.",
    ),
    click.option("--tool-calls", type=COUNT, default=4, show_default=True, help="Most calls of tools in one answer."),
    click.option(
        "--tool-tokens",
        type=COUNT,
        default=512,
        show_default=True,
        help="Most tokens of the tools' results in one answer; a longer result is cut.",
    ),
)


_DOCS_OPTIONS = (
    click.option("--docs", type=UserPath(), help="Index of documentation, written by 'evalkit index-docs'."),
    click.option(
        "--docs-top-k",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="K",
        help="Begin each prompt with the K entries of --docs that fit the problem best.",
    ),
    click.option(
        "--docs-tokens",
        type=COUNT,
        default=1024,
        show_default=True,
        help="Most tokens of these entries: examples and parameters are cut first.",
    ),
)


def docs_options(command: _Command) -> _Command:
    """Add the options of documentation in prompts."""
    for option in reversed(_DOCS_OPTIONS):
        command = option(command)
    return command


def tool_options(command: _Command) -> _Command:
    """Add the options of answers that call tools."""
    for option in reversed(_TOOL_OPTIONS):
        command = option(command)
    return command


_SANDBOX_OPTIONS = (
    click.option(
        "--sandbox",
        type=click.Choice(["auto", "strict"]),
        default="auto",
        show_default=True,
        help="strict refuses to run unless every layer of the sandbox is on.",
    ),
    click.option("--workers", type=COUNT, help="Programs executed concurrently. [default: three per two processors]"),
    click.option("--data-dir", type=UserPath(), help="Folder with benchmark files. [default: download them]"),
)


def sandbox_options(command: _Command) -> _Command:
    """Add the options of commands that execute programs on benchmark problems."""
    for option in reversed(_SANDBOX_OPTIONS):
        command = option(command)
    return command

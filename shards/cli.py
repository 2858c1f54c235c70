"""logit-shards: look at a cache, and check it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import click

from shards.errors import ShardError

_P = ParamSpec("_P")


def one_line_errors(command: Callable[_P, None]) -> Callable[_P, None]:
    """Print an error that a user can mend as one line and exit with 1; a bug keeps its traceback."""

    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ShardError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="teacherless")
def main() -> None:
    """Look at a cache of teacher records, and check it."""


@main.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@one_line_errors
def inspect(path: str, as_json: bool) -> None:
    """Say what the cache at PATH (a folder or URL) holds."""
    from shards.inspect import describe, summary
    from shards.read import open as open_cache

    facts = summary(open_cache(path))
    click.echo(json.dumps(facts, indent=1) if as_json else describe(facts))


@main.command()
@click.argument("path")
@one_line_errors
def verify(path: str) -> None:
    """Check every digest and invariant of the cache at PATH; exit with 1 on any problem."""
    from rich.console import Console
    from rich.progress import Progress

    from shards.read import open as open_cache
    from shards.verify import verify as find_problems

    cache = open_cache(path)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("checking", total=cache.tokens)
        problems = find_problems(cache, progress=lambda tokens: bar.advance(task, tokens))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo(f"{path}: {len(problems)} problems; fetch or dump the shards named above again", err=True)
        sys.exit(1)
    click.echo(f"{path}: sound, {cache.rows:,} rows, {cache.tokens:,} tokens, manifest {cache.manifest_sha256[:12]}")

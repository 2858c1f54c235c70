"""The command `evalkit build-private-api`: build the library and the problems of the benchmark into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.options import UserPath
from evalkit.text import visible


@click.command("build-private-api")
@click.option("--out", required=True, type=UserPath(), help="The folder, which must not exist.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the new names. 0 gives the library of 'evalkit score --tasks private-api'; for another one name the "
    "folder with --data-dir.",
)
def build_private_api(out: Path, seed: int) -> None:
    """Build the library of the benchmark private-api, a package whose names no model has seen, and its problems.

    The library is the installed package boltons with other names in code and documentation. Index it with 'evalkit
    index-docs' to let a model search its documentation.
    """
    from evalkit.tasks.private_api.benchmark import build_private_api as build

    built = build(out, seed=seed)
    click.echo(f"library: {visible(str(built.package))}")
    click.echo(f"problems: {len(built.problems)}, seed {built.seed}, sha256 {built.sha256}")

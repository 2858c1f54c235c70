"""The commands `evalkit index-docs` and `evalkit search-docs`: an offline index of documentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.errors import EvalError
from evalkit.options import COUNT, UserPath
from evalkit.text import visible

if TYPE_CHECKING:
    from evalkit.tools.docs.build import BuiltIndex

_SHOWN_PROBLEMS = 5
"""Skipped files that are named without `--verbose`."""


@click.command("index-docs")
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE_OR_FOLDER...")
@click.option("--out", required=True, type=UserPath(), help="The index, such as docs.db.")
@click.option("--no-import", is_flag=True, help="Read sources only; leave compiled and generated names out.")
@click.option("--verbose", is_flag=True, help="Name every file that was skipped.")
def index_docs(packages: tuple[str, ...], out: Path, no_import: bool, verbose: bool) -> None:
    """Index the documentation of installed packages, .py files and folders.

    The index has the signature, first paragraph, parameters and examples of every public name. Sources are parsed, not
    run. Compiled modules are imported in the sandbox.
    """
    from evalkit import console
    from evalkit.tools.docs.build import build_index

    with console.ScoreProgress() as progress:
        built = build_index(packages, out, progress, imports=not no_import)
    for line in _summary(built, verbose=verbose):
        click.echo(visible(line))


def _summary(built: BuiltIndex, *, verbose: bool) -> list[str]:
    """Return the lines that say what was read, what was skipped, and what was written."""
    lines = []
    for read in built.packages:
        imported = f", {read.num_imported} modules imported in the sandbox" if read.num_imported else ""
        version = f" {read.package.version}" if read.package.version else ""
        lines.append(f"{read.package.name}{version}: {len(read.names)} names ({read.num_files} files read{imported})")
    problems = [problem for read in built.packages for problem in read.problems]
    if problems:
        lines.append(f"skipped: {len(problems)}")
        shown = problems if verbose else problems[:_SHOWN_PROBLEMS]
        lines += [f"    {problem}" for problem in shown]
        if len(shown) < len(problems):
            lines.append(f"    and {len(problems) - len(shown)} more; --verbose names them")
    return [*lines, f"index: {built.path} ({built.size_bytes / 1e6:.1f} MB)"]


@click.command("search-docs")
@click.argument("index", type=UserPath())
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", type=COUNT, default=5, show_default=True, help="Entries to show.")
def search_docs(index: Path, query: tuple[str, ...], limit: int) -> None:
    """Search INDEX for names and words, as a model's search does.

    Names that the query spells out come first, then names that hold it, then the best matches of its words.
    """
    from evalkit.tools.docs.index import DocsIndex

    with DocsIndex.open(index) as opened:
        entries = opened.search(" ".join(query), limit)
    if not entries:
        raise EvalError(
            f"nothing in {index} matches {visible(' '.join(query))!r}; try a part of a name, or other words"
        )
    click.echo(visible("\n\n".join(entry.text() for entry in entries)))

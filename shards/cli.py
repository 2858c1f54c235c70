"""logit-shards: look at a cache, check it, share it, change it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import click

from shards.errors import CorruptShardError, IncompleteCacheError, ShardError
from shards.runtime.command_line import one_line_errors, standard_options
from shards.runtime.interrupts import interruptible


class Commands(click.Group):
    """The commands below, and those that other packages declare in the entry-point group `logit_shards.commands`.

    Packages that this one must not import (a corpus and a tokenizer are teacher_dump's) add commands that way.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_declared().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _declared().names:
            return own
        command: click.Command = _declared()[cmd_name].load()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Print an error that a user can fix as one line, and exit with 1."""
        with interruptible(), one_line_errors(ShardError, debug=ctx.params["debug"]):
            return super().invoke(ctx)


def _declared() -> EntryPoints:
    return entry_points(group="logit_shards.commands")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@standard_options("logit-shards")
def main(debug: bool) -> None:
    """Look at a cache of teacher records, check it, share it, change it."""


@contextmanager
def bytes_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes on stderr, with rate and time left; yields what is told how many moved."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(what, total=total)
        yield lambda num_bytes: bar.advance(task, num_bytes)


@main.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.option("--row", type=int, metavar="N", help="Show row N: its text, and the teacher's choices at each token.")
@click.option("--html", "page", type=click.Path(dir_okay=False), help="With --row: write a page to look at instead.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw captured mass, error and bytes to FILE, .svg or .png.",
)
def inspect(path: str, as_json: bool, row: int | None, page: str | None, picture: Path | None) -> None:
    """Say what the cache at PATH (a folder or URL) holds."""
    from shards.read import open as open_cache
    from shards.reports.summary import describe, summary

    cache = open_cache(path)
    if row is None:
        if page is not None:
            raise click.UsageError("--html shows one row: give --row N with it")
        facts = summary(cache)
        click.echo(json.dumps(facts, indent=1) if as_json else describe(facts))
        if picture is not None:
            from shards.reports.plots import draw

            draw(cache, facts["check"], picture)
        return
    if picture is not None:
        raise click.UsageError("--picture shows the cache, --row one row of it: give one of them")
    from shards.reports.row_view import as_html, as_text, find
    from shards.storage.atomic import write_atomic

    shown = find(cache, row)
    if page is None:
        click.echo(as_text(shown))
    else:
        write_atomic(Path(page), as_html(shown).encode())
        click.echo(page)


@main.command()
@click.argument("path")
@click.option("--fix-plan", is_flag=True, help="Print which files to fetch or dump again.")
@click.option("--json", "as_json", is_flag=True, help="Print that plan as one JSON object, for programs.")
def verify(path: str, fix_plan: bool, as_json: bool) -> None:
    """Check every digest and invariant of the cache at PATH; exit with 1 on any problem."""
    from rich.console import Console
    from rich.progress import Progress

    from shards import verify as checks
    from shards.format.side_files import not_checked
    from shards.read import open as open_cache

    try:
        cache = open_cache(path)
    except (CorruptShardError, IncompleteCacheError) as error:
        if fix_plan or as_json:
            _print_plan(checks.manifest_plan(path, str(error)), as_json=as_json)
        raise
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("checking", total=cache.tokens)
        problems = list(checks.find_problems(cache, progress=lambda tokens: bar.advance(task, tokens)))
    for problem in problems:
        click.echo(problem.text, err=True)
    if fix_plan or as_json:
        _print_plan(checks.fix_plan(cache, problems), as_json=as_json)
    if problems:
        click.echo(f"{path}: {len(problems)} problems; fetch or dump the shards named above again", err=True)
        sys.exit(1)
    if not as_json:
        for name in not_checked(cache):
            click.echo(f"not checked: {name} (the manifest does not list it)", err=True)
        rest = "" if cache.manifest.layout.tokens == "kept" else ", without its text"
        click.echo(
            f"{path}: sound{rest}, {cache.rows:,} rows, {cache.tokens:,} tokens, manifest {cache.manifest_sha256[:12]}"
        )


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=1))
        return
    for item in plan["again"]:
        click.echo(f"again: {item['name']} ({len(item['problems'])} problems)")
    if plan["again"]:
        if plan["to_fetch"]:
            click.echo(f"to fetch: {plan['to_fetch']}  (what is sound is not fetched again)")
        then = f", then run {plan['to_dump']['run']}" if plan["to_dump"]["run"] else ""
        click.echo(f"to dump: delete {' '.join(plan['to_dump']['delete'])}{then}")


@main.command()
@click.argument("path")
@click.argument("url")
@click.option("--without-tokens", is_flag=True, help="Leave the text out; its owner's copy can be put back by hydrate.")
def publish(path: str, url: str, without_tokens: bool) -> None:
    """Copy the cache at PATH to URL (a folder, s3://, hf://datasets/...): shards, data card, the manifest last.

    Running it again continues: what is there with the right size and digest is skipped.
    """
    from shards.edit.publish import publish as publish_cache
    from shards.read import open as open_cache
    from shards.reports.summary import licence_line

    cache = open_cache(path)
    with bytes_bar("publishing", sum(s.bytes for s in cache.manifest.shards)) as on_bytes:
        done = publish_cache(cache, url, without_tokens=without_tokens, on_bytes=on_bytes)
    click.echo(
        f"{url}: complete, sent {done.sent} files, skipped {done.skipped} that were there, "
        f"manifest {done.manifest.sha256[:12]}"
    )
    teacher = done.manifest.teacher
    if teacher.restricts_outputs:
        facts = {"licence": teacher.licence, "restricts_outputs": teacher.restricts_outputs}
        click.echo(f"note: {licence_line(facts)}")


@main.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def fetch(url: str, folder: Path) -> None:
    """Copy the cache at URL to FOLDER, every digest checked. Running it again continues, or mends what is damaged."""
    from shards.edit.publish import fetch as fetch_cache
    from shards.read import open as open_cache

    cache = open_cache(url)
    with bytes_bar("fetching", sum(s.bytes for s in cache.manifest.shards)) as on_bytes:
        done = fetch_cache(url, folder, on_bytes=on_bytes)
    click.echo(
        f"{folder}: complete, fetched {done.sent} files, skipped {done.skipped} that were there, "
        f"manifest {done.manifest.sha256[:12]}"
    )


@main.command()
@click.argument("path")
@click.option(
    "--list",
    "listed",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What to remove, one a line: a document's sha256, a source, or source/path.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def withdraw(path: str, listed: Path, out: Path) -> None:
    """Write the cache at PATH without some documents, with a tombstone for each; other shards stay the same bytes."""
    from shards.edit.withdraw import read_list
    from shards.edit.withdraw import withdraw as withdraw_documents
    from shards.read import open as open_cache

    names = read_list(listed)
    cache = open_cache(path)
    with bytes_bar("withdrawing", sum(s.bytes for s in cache.manifest.shards)) as on_bytes:
        done = withdraw_documents(cache, names, out, on_bytes=on_bytes)
    for name in done.unmatched:
        click.echo(f"not in the cache: {name}", err=True)
    click.echo(
        f"{out}: withdrew {len(done.tombstones):,} documents ({cache.rows - done.cache.rows:,} rows, "
        f"{cache.tokens - done.cache.tokens:,} tokens), rewrote {done.rewritten} of {len(cache.manifest.shards)} "
        f"shards, manifest {done.cache.manifest_sha256[:12]}"
    )


@main.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def merge(paths: tuple[str, ...], out: Path) -> None:
    """Join the caches at PATHS, of one teacher and layout. A row that is there twice is kept once."""
    from shards.edit.merge import merge as merge_caches
    from shards.read import open as open_cache

    caches = [open_cache(path) for path in paths]
    with bytes_bar("merging", sum(s.bytes for c in caches for s in c.manifest.shards)) as on_bytes:
        done = merge_caches(caches, out, on_bytes=on_bytes)
    click.echo(
        f"{out}: {done.cache.rows:,} rows, {done.cache.tokens:,} tokens of {len(caches)} caches, dropped "
        f"{done.dropped_rows:,} rows that were there twice, manifest {done.cache.manifest_sha256[:12]}"
    )

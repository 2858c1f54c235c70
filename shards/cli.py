"""The command `logit-shards`: inspect, check, share and edit caches."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import click

from shards.errors import CorruptShardError, IncompleteCacheError, ShardError
from shards.runtime.command_line import one_line_errors, standard_options
from shards.runtime.interrupts import interruptible
from shards.runtime.progress import progress_bar


class CommandGroup(click.Group):
    """The commands below, and those that other packages declare as entry points `logit_shards.commands`.

    Entry points allow commands of packages that this one must not import: a corpus belongs to teacher_dump.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_declared().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
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


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@standard_options("logit-shards")
def main(debug: bool) -> None:
    """Inspect, check, share and edit caches of teacher records."""


@main.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--row", type=int, metavar="N", help="Show row N: its text, and the teacher's choices at each token.")
@click.option("--html", "page", type=click.Path(dir_okay=False), help="With --row: write an HTML page instead.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Plot captured mass, error and bytes to FILE, .svg or .png.",
)
def inspect(path: str, as_json: bool, row: int | None, page: str | None, picture: Path | None) -> None:
    """Describe the cache at PATH (a folder or URL)."""
    from shards.read import open as open_cache
    from shards.reports.summary import describe, summary

    cache = open_cache(path)
    if row is None:
        if page is not None:
            raise click.UsageError("--html shows one row: give --row N with it")
        facts = summary(cache)
        click.echo(json.dumps(facts, indent=1) if as_json else describe(facts))
        if picture is not None:
            from shards.reports.plots import plot_cache

            plot_cache(cache, facts["check"], picture)
        return
    if picture is not None:
        raise click.UsageError("--picture shows the cache, --row one row of it: give one of them")
    from shards.reports.row_view import row_view, to_html, to_text
    from shards.storage.atomic import write_atomic

    view = row_view(cache, row)
    if page is None:
        click.echo(to_text(view))
    else:
        write_atomic(Path(page), to_html(view).encode())
        click.echo(page)


@main.command()
@click.argument("path")
@click.option("--fix-plan", is_flag=True, help="Print which files to fetch or dump again.")
@click.option("--json", "as_json", is_flag=True, help="Print that plan as one JSON object.")
def verify(path: str, fix_plan: bool, as_json: bool) -> None:
    """Check every digest and invariant of the cache at PATH; exit with 1 on any problem."""
    from shards import verify as checks
    from shards.read import open as open_cache

    try:
        cache = open_cache(path)
    except (CorruptShardError, IncompleteCacheError) as error:
        if fix_plan or as_json:
            _print_plan(checks.manifest_plan(path, str(error)), as_json=as_json)
        raise
    with progress_bar("checking", cache.tokens, unit="tokens") as on_tokens:
        problems = list(checks.find_problems(cache, on_tokens=on_tokens))
    for problem in problems:
        click.echo(problem.text, err=True)
    if fix_plan or as_json:
        _print_plan(checks.fix_plan(cache, problems), as_json=as_json)
    if problems:
        click.echo(f"{path}: {len(problems)} problems; fetch or dump the shards named above again", err=True)
        sys.exit(1)
    if not as_json:
        for name in checks.unknown_files(cache):
            click.echo(f"not checked: {name} (the manifest does not list it)", err=True)
        without_text = "" if cache.manifest.layout.has_tokens else ", without its text"
        click.echo(
            f"{path}: sound{without_text}, {cache.rows:,} rows, {cache.tokens:,} tokens, "
            f"manifest {cache.manifest_sha256[:12]}"
        )


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=1))
        return
    for item in plan["again"]:
        click.echo(f"again: {item['name']} ({len(item['problems'])} problems)")
    if plan["again"]:
        if plan["to_fetch"]:
            click.echo(f"to fetch: {plan['to_fetch']}  (sound files are not fetched again)")
        run = f", then run {plan['to_dump']['run']}" if plan["to_dump"]["run"] else ""
        click.echo(f"to dump: delete {' '.join(plan['to_dump']['delete'])}{run}")


@main.command()
@click.argument("path")
@click.argument("url")
@click.option("--without-tokens", is_flag=True, help="Leave the text out. `hydrate` restores it from your corpus.")
@click.option("--force", is_flag=True, help="With --without-tokens: remove the text of responses for good.")
def publish(path: str, url: str, without_tokens: bool, force: bool) -> None:
    """Copy the cache at PATH to URL (a folder, s3://, hf://datasets/...): shards, data card, the manifest last.

    Running it again continues: files with the right size and digest are skipped.
    """
    from shards.edit.publish import publish as publish_cache
    from shards.read import open as open_cache
    from shards.reports.summary import licence_line

    if force and not without_tokens:
        raise click.UsageError("--force allows --without-tokens for responses: give it with --without-tokens")
    cache = open_cache(path)
    with progress_bar("publishing", _shard_bytes(cache)) as on_bytes:
        transfer = publish_cache(cache, url, without_tokens=without_tokens, force=force, on_bytes=on_bytes)
    click.echo(
        f"{url}: complete, sent {transfer.sent} files, skipped {transfer.skipped} that were there, "
        f"manifest {transfer.manifest.sha256[:12]}"
    )
    teacher = transfer.manifest.teacher
    if teacher.restricts_outputs:
        facts = {"licence": teacher.licence, "restricts_outputs": teacher.restricts_outputs}
        click.echo(f"note: {licence_line(facts)}")


@main.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def fetch(url: str, folder: Path) -> None:
    """Copy the cache at URL to FOLDER and check every digest. Running it again continues, or repairs damaged files."""
    from shards.edit.publish import fetch as fetch_cache
    from shards.read import open as open_cache

    cache = open_cache(url)
    with progress_bar("fetching", _shard_bytes(cache)) as on_bytes:
        transfer = fetch_cache(url, folder, on_bytes=on_bytes)
    click.echo(
        f"{folder}: complete, fetched {transfer.sent} files, skipped {transfer.skipped} that were there, "
        f"manifest {transfer.manifest.sha256[:12]}"
    )


@main.command()
@click.argument("path")
@click.option(
    "--list",
    "list_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File of documents to remove, one a line: a document's sha256, a source, or source/path.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def withdraw(path: str, list_file: Path, out: Path) -> None:
    """Write the cache at PATH without some documents, with a tombstone for each; other shards stay the same bytes."""
    from shards.edit.withdraw import read_list
    from shards.edit.withdraw import withdraw as withdraw_documents
    from shards.read import open as open_cache

    names = read_list(list_file)
    cache = open_cache(path)
    with progress_bar("withdrawing", _shard_bytes(cache)) as on_bytes:
        result = withdraw_documents(cache, names, out, on_bytes=on_bytes)
    for name in result.unmatched:
        click.echo(f"not in the cache: {name}", err=True)
    click.echo(
        f"{out}: withdrew {len(result.tombstones):,} documents ({cache.rows - result.cache.rows:,} rows, "
        f"{cache.tokens - result.cache.tokens:,} tokens), rewrote {result.rewritten} of {len(cache.manifest.shards)} "
        f"shards, manifest {result.cache.manifest_sha256[:12]}"
    )


@main.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def merge(paths: tuple[str, ...], out: Path) -> None:
    """Join the caches at PATHS, of one teacher and layout. Duplicate rows are kept once."""
    from shards.edit.merge import merge as merge_caches
    from shards.read import open as open_cache

    caches = [open_cache(path) for path in paths]
    with progress_bar("merging", sum(_shard_bytes(cache) for cache in caches)) as on_bytes:
        result = merge_caches(caches, out, on_bytes=on_bytes)
    click.echo(
        f"{out}: {result.cache.rows:,} rows, {result.cache.tokens:,} tokens of {len(caches)} caches, dropped "
        f"{result.dropped_rows:,} duplicate rows, manifest {result.cache.manifest_sha256[:12]}"
    )


@main.command("import")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--from",
    "layout",
    required=True,
    type=click.Choice(["distillkit", "top-k-parquet"]),
    help="Layout of the Parquet files.",
)
@click.option(
    "--tokenizer", required=True, metavar="FOLDER|NAME", help="The teacher's tokenizer: a folder, or a hub name."
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the cache.")
@click.option("--teacher", default="not known", show_default=True, help="Name of the teacher, for the manifest.")
@click.option("--licence", default="", help="Licence of the teacher, for the manifest.")
@click.option("--vocab-size", type=click.IntRange(min=1), help="Ids of the teacher; by default the tokenizer's.")
@click.option("--renormalised", is_flag=True, help="The stored probabilities sum to 1: other ids' mass is not known.")
@click.option("--columns", multiple=True, metavar="KIND=NAME", help="top-k-parquet: another name of a column.")
@click.option(
    "--compression",
    type=click.Path(path_type=Path, dir_okay=False),
    help="distillkit: settings of the capture, YAML or JSON; by default compression_config.yaml beside the files.",
)
def import_command(path: Path, layout: str, out: Path, columns: tuple[str, ...], **options: Any) -> None:
    """Make a cache of the top-k log-probs in the Parquet file or folder at PATH, as other tools store them.

    Parts of the records that they do not store are marked as absent; losses that need these are refused.
    """
    from shards.imports.run import ImportRequest, import_cache, source_bytes

    pairs = [text.partition("=") for text in columns]
    if wrong := [kind for kind, sign, name in pairs if not (sign and name)]:
        raise click.UsageError(f"--columns {wrong[0]}: expected KIND=NAME, as in ids=top_ids")
    options["is_renormalised"] = options.pop("renormalised")
    request = ImportRequest(layout=layout, path=path, columns={kind: name for kind, _, name in pairs}, **options)
    with progress_bar("importing", source_bytes(path)) as on_bytes:
        result = import_cache(request, out, on_bytes=on_bytes)
    for name, count in result.counts.items():
        if count and name != "entries":
            click.echo(
                f"{name}: {count:,}" + (f" of {result.counts['entries']:,}" if "entries" in name else ""), err=True
            )
    if result.in_head < 0.5:
        click.echo(
            f"note: only {result.in_head:.1%} of the tokens are among the entries of their position; are the lists "
            "shifted, or is this another tokenizer?",
            err=True,
        )
    click.echo(
        f"{out}: {result.cache.rows:,} rows, {result.cache.tokens:,} tokens, {result.in_head:.1%} of the realised "
        f"tokens in the head, manifest {result.cache.manifest_sha256[:12]}"
    )


@main.command()
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--weights", required=True, metavar="W,W,...", help="Weight of each cache, in order, with commas between."
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def combine(paths: tuple[str, ...], weights: str, out: Path) -> None:
    """Mix the distributions of the teachers of the caches at PATHS, on the rows that all of them recorded."""
    from shards.edit.combine import combine as combine_caches
    from shards.read import open as open_cache

    try:
        numbers = [float(weight) for weight in weights.split(",")]
    except ValueError:
        raise ShardError(f"weights: found {weights!r}, expected numbers with commas between, as 0.5,0.5") from None
    caches = [open_cache(path) for path in paths]
    with progress_bar("combining", _shard_bytes(caches[0])) as on_bytes:
        result = combine_caches(caches, numbers, out, on_bytes=on_bytes)
    for path, count in zip(paths, result.left_out, strict=True):
        if count:
            click.echo(f"{path}: left out {count:,} rows that not all caches have", err=True)
    for path, cache in zip(paths, caches, strict=True):
        if (group := cache.manifest.layout.relations) is not None:
            click.echo(f"{path}: left out the relations of layer {group.layer}, which a mixture has none of", err=True)
    click.echo(
        f"{out}: {result.cache.rows:,} rows, {result.cache.tokens:,} tokens of {result.cache.manifest.teacher.name}, "
        f"manifest {result.cache.manifest_sha256[:12]}"
    )


def _shard_bytes(cache: Any) -> int:
    return sum(shard.bytes for shard in cache.manifest.shards)

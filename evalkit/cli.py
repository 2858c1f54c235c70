"""What can a user ask for? The `evalkit` command: parse, call, print, map errors to exit codes.

Exit 0: done. 1: something that the user can mend, in one line on standard error. 2: usage. A bug keeps its
traceback. `--debug` shows the traceback of a one-line error, too.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from evalkit.errors import EvalError
from shards.machine import DTYPES


class _Group(click.Group):
    """Turns an EvalError into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EvalError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"evalkit: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="teacherless", prog_name="evalkit")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def main(debug: bool) -> None:
    """Score code models on programming benchmarks, in confinement, and report what was measured."""


@main.command()
@click.argument("checkpoint", required=False)
@click.option(
    "--samples", type=click.Path(path_type=Path), help="Score these samples (JSONL) in place of a checkpoint."
)
@click.option("--tasks", default="humaneval", show_default=True, help="Benchmarks, separated by commas.")
@click.option("--json", "result", type=click.Path(path_type=Path), help="The result. [default: score.json in --out]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the result. [default: CHECKPOINT/evalkit]")
@click.option("--protocol", help="How the model is asked; 'evalkit protocols' lists them. [default: the task's]")
@click.option("--engine", default="auto", show_default=True, help="auto, vllm or transformers.")
@click.option("--max-new-tokens", type=int, help="Longest answer in tokens. [default: the protocol's]")
@click.option("--n", "num_samples", type=int, help="Answers per problem. [default: the protocol's]")
@click.option("--temperature", type=float, help="0 is greedy. [default: the protocol's]")
@click.option("--top-p", type=float, help="Share of the probability to sample from. [default: the protocol's]")
@click.option("--batch-size", type=int, help="Answers written side by side.")
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES, "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the model. auto: bfloat16 where the GPU or the processor computes in it, else float32.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of sampling.")
@click.option("--limit", type=int, help="Only the first so many problems: a quick look, not a score.")
@click.option("--deterministic", is_flag=True, help="Fixed batches, and float32 unless --dtype.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "strict"]),
    default="auto",
    show_default=True,
    help="strict refuses to run unless every layer of confinement is on.",
)
@click.option("--workers", type=int, help="Programs run side by side. [default: three for two processors]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with benchmark files. [default: fetched]")
@click.option("--html", "page", type=click.Path(path_type=Path), help="The page. [default: beside the result]")
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option("--no-cache", is_flag=True, help="Judge every program anew.")
def score(
    checkpoint: str | None,
    samples: Path | None,
    tasks: str,
    result: Path | None,
    out: Path | None,
    sandbox: str,
    no_cache: bool,
    page: Path | None,
    no_html: bool,
    **settings: Any,
) -> None:
    """Score CHECKPOINT (a transformers folder or hub id), or samples made elsewhere."""
    from evalkit import console
    from evalkit.evaluate import evaluate
    from evalkit.request import Request

    if (checkpoint is None) == (samples is None):
        raise click.UsageError("expected either CHECKPOINT or --samples FILE")
    result = result or _default_folder(out, checkpoint, samples) / "score.json"
    request = Request(
        checkpoint=checkpoint,
        samples=samples,
        tasks=tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip())),
        result=result,
        page=page or _default_page(result, no_html),
        strict=sandbox == "strict",
        use_cache=not no_cache,
        **settings,
    )
    with console.Progress() as progress:
        outcome = evaluate(request, progress)
    console.print_scores(outcome, request.result, request.page)
    if failed := sum(score["infra_errors"] for score in outcome["scores"].values()):
        raise EvalError(
            f"{failed} samples could not be judged on this machine (infra_error, see {request.result}) and are left "
            "out of the scores; mend the cause and run the same command again"
        )


def _default_folder(out: Path | None, checkpoint: str | None, samples: Path | None) -> Path:
    """Beside what was scored: in the checkpoint's folder, or here for a hub id; beside a file of samples."""
    if out is not None:
        return out
    if samples is not None:
        return samples.parent / f"{samples.name.partition('.')[0]}-evalkit"
    assert checkpoint is not None
    return (
        Path(checkpoint, "evalkit") if Path(checkpoint).is_dir() else Path(f"evalkit-{checkpoint.replace('/', '--')}")
    )


def _default_page(result: Path, no_html: bool) -> Path | None:
    """Beside the result; none where it is not wanted, or what draws it is not installed."""
    return None if no_html or importlib.util.find_spec("jinja2") is None else result.with_suffix(".html")


@main.command()
def doctor() -> None:
    """Show which layers of confinement hold on this machine, and whether the executor works."""
    from evalkit import console
    from evalkit.doctor import examine

    if not console.print_doctor(examine()):
        sys.exit(1)


@main.command()
def protocols() -> None:
    """List the ways of asking, with every setting."""
    from evalkit import console
    from evalkit.protocols import PROTOCOLS

    console.print_protocols(PROTOCOLS)


@main.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write a page with all of them.")
def compare(results: tuple[Path, ...], page: Path | None) -> None:
    """Compare the first of RESULTS with each other one, problem by problem."""
    from evalkit import console
    from evalkit.compare import compare as compare_results
    from evalkit.compare_page import write_comparison

    comparisons = compare_results(list(results))
    console.print_comparisons(comparisons)
    if page is not None:
        write_comparison(page, results, comparisons)
        click.echo(f"page: {page}")


@main.command()
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The HTML file.")
@click.option("--score", "scores", multiple=True, type=click.Path(path_type=Path), help="A result of 'evalkit score'.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Also write the table as Markdown.")
def report(run_dirs: tuple[Path, ...], out: Path, scores: tuple[Path, ...], markdown: Path | None) -> None:
    """Show what student-train measured in RUN_DIRS, beside HumanEval results, as a table and one HTML file."""
    from evalkit import console
    from evalkit.report import build, write

    built = build(list(run_dirs), scores=list(scores))
    write(built, out=out, markdown=markdown)
    console.print_report(built, out)

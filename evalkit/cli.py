"""The `evalkit` command: parse, call, print, map errors to exit codes.

Exit 0: done. 1: something that the user can mend, in one line on standard error. 2: usage. 129, 130 and 143: ended
by SIGHUP, Ctrl-C and SIGTERM. A bug keeps its traceback. `--debug` shows the traceback of a one-line error, too.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evalkit.errors import EvalError
from evalkit.outputs import paths
from evalkit.outputs.files import is_special
from evalkit.signals import EndedError, end_quietly
from evalkit.text import one_line, visible
from shards.runtime.machine import DTYPES


class _Group(click.Group):
    """Turns an EvalError into one line and exit code 1, and a signal into one line and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with end_quietly():
                return super().invoke(ctx)
        except EvalError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"evalkit: {one_line(str(error))}", err=True)
            ctx.exit(1)
        except MemoryError:
            click.echo("evalkit: out of memory; free some, or raise the limit (ulimit -v)", err=True)
            ctx.exit(1)
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            click.echo("evalkit: no thread can be started; raise the limit on processes (ulimit -u)", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, EndedError) as error:
            number = signal.Signals(error.number if isinstance(error, EndedError) else signal.SIGINT)
            click.echo(
                f"evalkit: ended by {number.name}; what was written and judged is kept, "
                "the same command goes on from there",
                err=True,
            )
            ctx.exit(128 + number)


class _UserPath(click.Path):
    """A path in which `~` is the user's home, as a shell would have it where it stands after an `=`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("is empty; name a file or folder", param, ctx)
        try:
            path = Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()
        except RuntimeError:
            self.fail(f"{visible(str(value))}: there is no such user here; write the path out", param, ctx)
        if "~" in path.parts and not path.exists():
            self.fail(f"{visible(str(value))}: holds a folder ~; write the path out", param, ctx)
        return path


class _Checkpoint(click.ParamType["str"]):
    """A folder, in which `~` is the user's home, or a hub id."""

    name = "checkpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("is empty; name a folder or hub id", param, ctx)
        return str(_UserPath().convert(text, param, ctx)) if text.startswith("~") else text


class _Tasks(click.ParamType["tuple[str, ...]"]):
    """Names of benchmarks, separated by commas."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))
        if not names:
            self.fail("names no benchmark; expected one such as humaneval", param, ctx)
        return names


_COUNT = click.IntRange(min=1)
_OF_GENERATION = (
    "protocol", "engine", "max_new_tokens", "num_samples", "temperature", "top_p", "batch_size", "dtype", "seed",
    "deterministic",
)  # fmt: skip
"""Parameters that say how a checkpoint is asked; samples made elsewhere are not."""


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="teacherless", prog_name="evalkit")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def main(debug: bool) -> None:
    """Score code models on programming benchmarks, in confinement, and report what was measured."""


@main.command()
@click.argument("checkpoint", required=False, type=_Checkpoint())
@click.option(
    "--samples",
    type=_UserPath(),
    help="Score these samples in place of a checkpoint: JSONL or a JSON array, also gzipped; a folder of EvalPlus; - "
    "for standard input.",
)
@click.option(
    "--sanitize",
    is_flag=True,
    help="Judge only the program in each sample, without the text around it. Needs --samples.",
)
@click.option(
    "--tasks",
    default="humaneval",
    show_default=True,
    type=_Tasks(),
    help="Benchmarks, separated by commas: humaneval, humaneval+, mbpp, mbpp-sanitized, mbpp+.",
)
@click.option("--json", "result", type=_UserPath(), help="File of the result. [default: score.json in --out]")
@click.option("--out", type=_UserPath(), help="Folder of the result. [default: CHECKPOINT/evalkit]")
@click.option("--protocol", help="How the model is asked; 'evalkit protocols' lists them. [default: the task's]")
@click.option("--engine", default="auto", show_default=True, help="auto, vllm or transformers.")
@click.option("--max-new-tokens", type=int, help="Longest answer in tokens. [default: the protocol's]")
@click.option("--n", "num_samples", type=_COUNT, help="Answers per problem. [default: the protocol's]")
@click.option("--temperature", type=float, help="Temperature of sampling; 0 is greedy. [default: the protocol's]")
@click.option("--top-p", type=float, help="Share of the probability to sample from. [default: the protocol's]")
@click.option("--batch-size", type=_COUNT, help="Answers generated side by side in one batch.")
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES, "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the model. auto: bfloat16 where the GPU or the processor computes in it, else float32.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of sampling.")
@click.option("--limit", type=_COUNT, help="Score only this many problems, the first ones: a quick look, not a score.")
@click.option("--deterministic", is_flag=True, help="Fixed batches, and float32 unless --dtype names another type.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "strict"]),
    default="auto",
    show_default=True,
    help="strict refuses to run unless every layer of confinement is on.",
)
@click.option("--workers", type=_COUNT, help="Programs judged side by side. [default: three for each two processors]")
@click.option("--data-dir", type=_UserPath(), help="Folder with benchmark files. [default: fetched]")
@click.option("--html", "page", type=_UserPath(), help="HTML page of the result. [default: beside the result]")
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option("--no-cache", is_flag=True, help="Judge every program anew; neither read nor keep verdicts.")
@click.pass_context
def score(
    ctx: click.Context,
    /,
    checkpoint: str | None,
    samples: Path | None,
    result: Path | None,
    out: Path | None,
    sandbox: str,
    no_cache: bool,
    page: Path | None,
    no_html: bool,
    **settings: Any,
) -> None:
    """Score CHECKPOINT (a transformers folder or hub id), or samples made elsewhere."""
    from evalkit.sandbox.pool import require_address_space

    _refuse_what_does_nothing(ctx)
    require_address_space()  # before the large libraries are loaded, which fail in their own ways without it
    from evalkit import console
    from evalkit.evaluate import evaluate
    from evalkit.request import Request

    result = result or _default_folder(out, checkpoint, samples) / "score.json"
    request = Request(
        checkpoint=checkpoint,
        samples=samples,
        result=result,
        page=page or _default_page(result, no_html),
        strict=sandbox == "strict",
        use_cache=not no_cache,
        **settings,
    )
    with console.Progress() as progress:
        outcome = evaluate(request, progress)
    console.print_scores(outcome, request.result, request.page)
    lost = [one for verdicts in outcome["tasks"].values() for one in verdicts if one["outcome"] == "infra_error"]
    if lost:
        what = "1 sample" if len(lost) == 1 else f"{len(lost)} samples"
        raise EvalError(
            f"{what} could not be judged on this machine and count as no answer (infra_error: {lost[0]['detail']}); "
            "mend the cause and run the same command again"
        )


def _refuse_what_does_nothing(ctx: click.Context) -> None:
    """Refuse options that do not go together, and those that would be ignored.

    Raises:
        click.UsageError: there are some.
    """

    def given(*names: str) -> list[str]:
        asked = {name for name in names if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
        return [option.opts[0] for option in ctx.command.params if option.name in asked]

    if len(given("checkpoint", "samples")) != 1:
        raise click.UsageError("expected either CHECKPOINT or --samples FILE")
    if given("samples") and (idle := given(*_OF_GENERATION)):
        raise click.UsageError(f"{', '.join(idle)}: does nothing with --samples; it says how a CHECKPOINT is asked")
    if given("checkpoint", "sanitize") == ["checkpoint", "--sanitize"]:
        raise click.UsageError("--sanitize is for --samples; for a CHECKPOINT the protocol says what is judged")
    for one, other in (("page", "no_html"), ("result", "out")):
        if len(both := given(one, other)) == 2:
            raise click.UsageError(f"expected either {both[0]} or {both[1]}")
    if str(ctx.params["result"]) == "-" or str(ctx.params["page"]) == "-":
        raise click.UsageError("expected the name of a file, found -; /dev/stdout is standard output")


def _default_folder(out: Path | None, checkpoint: str | None, samples: Path | None) -> Path:
    """Beside what was scored: in the checkpoint's folder, or here for a hub id; beside a file of samples."""
    if out is not None:
        return out
    if samples is not None:
        return paths.samples_folder(samples)
    assert checkpoint is not None
    return (
        Path(checkpoint, "evalkit") if Path(checkpoint).is_dir() else Path(f"evalkit-{checkpoint.replace('/', '--')}")
    )


def _default_page(result: Path, no_html: bool) -> Path | None:
    """Beside the result; none where it is not wanted, has no place, or what draws it is not installed."""
    if no_html or is_special(result) or importlib.util.find_spec("jinja2") is None:
        return None
    return paths.beside(result, ".html")


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
    from evalkit.tasks.protocols import PROTOCOLS

    console.print_protocols(PROTOCOLS)


@main.command()
@click.argument("results", nargs=-1, required=True, type=_UserPath())
@click.option("--html", "page", type=_UserPath(), help="Also write a page with all of them.")
def compare(results: tuple[Path, ...], page: Path | None) -> None:
    """Compare the first of RESULTS with each other one, problem by problem."""
    from evalkit import console
    from evalkit.reports.comparison import compare as compare_results
    from evalkit.reports.comparison_page import write_comparison

    paths.refuse_overlap({"--html": page}, results)
    comparisons = compare_results(list(results))
    console.print_comparisons(comparisons)
    if page is not None:
        write_comparison(page, results, comparisons)
        click.echo(f"page: {visible(str(page))}")


@main.command()
@click.argument("run_dirs", nargs=-1, required=True, type=_UserPath())
@click.option("--out", required=True, type=_UserPath(), help="The HTML file.")
@click.option("--score", "scores", multiple=True, type=_UserPath(), help="A result of 'evalkit score'.")
@click.option("--markdown", type=_UserPath(), help="Also write the table as Markdown.")
def report(run_dirs: tuple[Path, ...], out: Path, scores: tuple[Path, ...], markdown: Path | None) -> None:
    """Show what student-train measured in RUN_DIRS, beside HumanEval results, as a table and one HTML file."""
    from evalkit import console
    from evalkit.reports.distillation import build, write
    from evalkit.reports.run_dir import files_of

    read = [*scores, *(path for folder in run_dirs for path in files_of(folder))]
    paths.refuse_overlap({"--out": out, "--markdown": markdown}, read)
    built = build(list(run_dirs), scores=list(scores))
    write(built, out=out, markdown=markdown)
    console.print_report(built, out)

"""The `evalkit` command: parse options, call, print, and map errors to exit codes.

Exit codes: 0 success; 1 an error that the user can fix, as one line on standard error; 2 wrong usage; 129, 130 and 143
after SIGHUP, Ctrl-C and SIGTERM. A bug keeps its traceback. `--debug` shows the traceback of one-line errors, too.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.errors import EvalError
from evalkit.options import (
    COUNT,
    CheckpointName,
    CommaSeparated,
    TaskNames,
    UserPath,
    docs_options,
    explicit_options,
    generation_options,
    refuse_dependent_options,
    sandbox_options,
    tool_options,
)
from evalkit.outputs import paths
from evalkit.outputs.files import is_special
from evalkit.request import REFINE_FORMS
from evalkit.signals import EndedError, end_quietly
from evalkit.subcommands.ask import ask
from evalkit.subcommands.build_private_api import build_private_api
from evalkit.subcommands.docs import index_docs, search_docs
from evalkit.subcommands.rerank import rerank
from evalkit.subcommands.train_verifier import train_verifier
from evalkit.subcommands.write_tests import write_tests
from evalkit.tasks.registry import BENCHMARKS
from evalkit.text import one_line, visible
from shards.runtime.command_line import fail, standard_options

if TYPE_CHECKING:
    from evalkit.outputs.result import Evaluation


class _Group(click.Group):
    """A group that turns EvalErrors, exhausted resources and signals into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with end_quietly():
                return super().invoke(ctx)
        except EvalError as error:
            if ctx.params.get("debug"):
                raise
            fail(one_line(str(error)), prefix="evalkit")
        except MemoryError:
            fail("out of memory; free some, or raise the limit (ulimit -v)", prefix="evalkit")
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            fail("no thread can be started; raise the limit on processes (ulimit -u)", prefix="evalkit")
        except (KeyboardInterrupt, EndedError) as error:
            number = signal.Signals(error.number if isinstance(error, EndedError) else signal.SIGINT)
            fail(
                f"ended by {number.name}; samples and verdicts so far are kept, and the same command resumes from them",
                prefix="evalkit",
                exit_code=128 + number,
            )


_GENERATION_PARAMETERS = (
    "protocol", "engine", "max_new_tokens", "num_samples", "temperature", "top_p", "batch_size", "dtype", "seed",
    "deterministic", "rerank", "refine", "refine_form", "tools",
    "tool_calls", "tool_tokens", "tool_first", "docs", "docs_top_k", "docs_tokens", "docs_oracle",
)  # fmt: skip
"""Parameters that have no effect on samples generated elsewhere."""


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@standard_options("evalkit")
def main(debug: bool) -> None:
    """Score code models on programming benchmarks, in a sandbox, and report the measurements."""


@main.command()
@click.argument("checkpoint", required=False, type=CheckpointName())
@click.option(
    "--samples",
    type=UserPath(),
    help="Score these samples in place of a checkpoint: JSONL or a JSON array, also gzipped; an EvalPlus folder; - for "
    "standard input.",
)
@click.option(
    "--sanitize",
    is_flag=True,
    help="Execute only the program in each sample, without the text around it. Needs --samples.",
)
@click.option(
    "--tasks",
    default="humaneval",
    show_default=True,
    type=TaskNames(),
    help=f"Benchmarks, separated by commas: {', '.join(BENCHMARKS)}.",
)
@click.option("--json", "result", type=UserPath(), help="File of the result. [default: score.json in --out]")
@click.option("--out", type=UserPath(), help="Folder of the result. [default: CHECKPOINT/evalkit]")
@generation_options
@click.option(
    "--rerank",
    default="",
    type=CommaSeparated(),
    help="Also let the checkpoint write tests, choose among its answers by these methods, separated by commas, such as "
    "srank, and score the choices. The default protocol is then one that shows no tests.",
)
@tool_options
@docs_options
@click.option(
    "--docs-oracle",
    is_flag=True,
    help="Begin each prompt with the pages of --docs that the reference needs, as private-api names them.",
)
@click.option(
    "--refine",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="R",
    help="Execute each answer on the tests that its prompt shows, show the model the first failure, and ask again, at "
    "most R times. The answer is the attempt that passes most of these tests.",
)
@click.option(
    "--refine-form",
    type=click.Choice(REFINE_FORMS),
    default=REFINE_FORMS[0],
    show_default=True,
    help="What the model is shown: its first prompt with the failures alone; all programs and their failures; or its "
    "first prompt only, for another sample.",
)
@click.option("--limit", type=COUNT, help="Score only the first N problems. Such a score is not the benchmark's.")
@click.option(
    "--deterministic", is_flag=True, help="Fix the composition of batches; float32 unless --dtype names another type."
)
@sandbox_options
@click.option("--html", "page", type=UserPath(), help="HTML page of the result. [default: beside the result]")
@click.option("--no-html", is_flag=True, help="Write no page.")
@click.option("--no-cache", is_flag=True, help="Execute every program; neither read nor write cached verdicts.")
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
    """Score CHECKPOINT (a transformers folder or hub id), or samples generated elsewhere."""
    from evalkit.sandbox.pool import require_address_space

    _check_options(ctx)
    require_address_space()  # before the large libraries are imported: without address space their errors are obscure
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
    with console.ScoreProgress() as progress:
        evaluation = evaluate(request, progress)
    console.print_scores(evaluation, request.result, request.page)
    _require_verdicts(evaluation)


def _check_options(ctx: click.Context) -> None:
    """Refuse options that exclude each other, and those that would have no effect.

    Raises:
        click.UsageError: There are such options.
    """
    given = partial(explicit_options, ctx)
    if len(given("checkpoint", "samples")) != 1:
        raise click.UsageError("expected either CHECKPOINT or --samples FILE")
    if given("samples") and (unused := given(*_GENERATION_PARAMETERS)):
        raise click.UsageError(f"{', '.join(unused)}: has no effect with --samples; it applies to a CHECKPOINT")
    refuse_dependent_options(ctx)
    if given("checkpoint", "sanitize") == ["checkpoint", "--sanitize"]:
        raise click.UsageError("--sanitize is for --samples; for a CHECKPOINT the protocol decides")
    for pair in (("page", "no_html"), ("result", "out")):
        if len(options := given(*pair)) == 2:
            raise click.UsageError(f"expected either {options[0]} or {options[1]}")
    if str(ctx.params["result"]) == "-" or str(ctx.params["page"]) == "-":
        raise click.UsageError("expected the name of a file, found -; /dev/stdout is standard output")


def _default_folder(out: Path | None, checkpoint: str | None, samples: Path | None) -> Path:
    """Return the output folder: in the checkpoint's folder, in the working directory for a hub id, beside samples."""
    if out is not None:
        return out
    if samples is not None:
        return paths.samples_folder(samples)
    assert checkpoint is not None
    if Path(checkpoint).is_dir():
        return Path(checkpoint, "evalkit")
    return Path(f"evalkit-{checkpoint.replace('/', '--')}")


def _default_page(result: Path, no_html: bool) -> Path | None:
    """Return the page beside the result; None with --no-html, for a device, or without jinja2."""
    if no_html or is_special(result) or importlib.util.find_spec("jinja2") is None:
        return None
    return paths.beside(result, ".html")


def _require_verdicts(evaluation: Evaluation) -> None:
    """Raise an error after the result is written if samples could not be executed.

    Raises:
        EvalError: There are such samples.
    """
    failed = [
        execution.verdict
        for benchmark in evaluation.benchmarks
        for problem in benchmark.problems
        for execution in problem.executions
        if execution.verdict.outcome == "infra_error"
    ]
    if failed:
        count = "1 sample" if len(failed) == 1 else f"{len(failed)} samples"
        raise EvalError(
            f"{count} could not be executed on this machine and are left out of the scores (infra_error: "
            f"{failed[0].detail}); fix the cause and run the same command again"
        )


@main.command()
def doctor() -> None:
    """Show which layers of the sandbox are on, and whether they stop known programs."""
    from evalkit import console
    from evalkit.doctor import examine

    if not console.print_doctor(examine()):
        sys.exit(1)


@main.command()
def protocols() -> None:
    """List the protocols with all their settings."""
    from evalkit import console
    from evalkit.tasks.presets import PROTOCOLS

    console.print_protocols(PROTOCOLS)


@main.command()
@click.argument("results", nargs=-1, required=True, type=UserPath())
@click.option("--html", "page", type=UserPath(), help="Also write a page that compares all of them.")
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
@click.argument("run_dirs", nargs=-1, required=True, type=UserPath())
@click.option("--out", required=True, type=UserPath(), help="The HTML file.")
@click.option("--score", "scores", multiple=True, type=UserPath(), help="A result of 'evalkit score'.")
@click.option("--markdown", type=UserPath(), help="Also write the table as Markdown.")
def report(run_dirs: tuple[Path, ...], out: Path, scores: tuple[Path, ...], markdown: Path | None) -> None:
    """Report the measurements of student-train in RUN_DIRS, beside benchmark scores, as a table and an HTML page.

    In place of folders: the result of one 'student-train --evaluate', as an HTML page.
    """
    from evalkit import console
    from evalkit.reports.training.distillation import build
    from evalkit.reports.training.distillation_page import write
    from evalkit.reports.training.model_evaluation_page import write_model_evaluation
    from evalkit.reports.training.run_dir import files_of

    if len(run_dirs) == 1 and run_dirs[0].is_file():
        if scores or markdown is not None:
            raise EvalError(
                f"{run_dirs[0]}: a result of --evaluate takes neither --score nor --markdown; leave them out"
            )
        paths.refuse_overlap({"--out": out}, run_dirs)
        write_model_evaluation(out, run_dirs[0])
        click.echo(f"page: {visible(str(out))}")
        return
    inputs = [*scores, *(path for folder in run_dirs for path in files_of(folder))]
    paths.refuse_overlap({"--out": out, "--markdown": markdown}, inputs)
    built = build(list(run_dirs), scores=list(scores))
    write(built, out=out, markdown=markdown)
    console.print_report(built, out)


main.add_command(rerank)
main.add_command(write_tests)
main.add_command(train_verifier)
main.add_command(build_private_api)
main.add_command(ask)
main.add_command(index_docs)
main.add_command(search_docs)

"""The command `evalkit rerank`: options, call, and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.errors import EvalError
from evalkit.options import COUNT, CheckpointName, CommaSeparated, TaskNames, UserPath, sandbox_options
from evalkit.outputs.paths import beside


@click.command()
@click.argument("samples", nargs=-1, required=True, type=UserPath())
@click.option("--tests", type=UserPath(), help="Tests that a model wrote: JSONL, also gzipped. [default: none]")
@click.option(
    "--tasks", default="humaneval", show_default=True, type=TaskNames(), help="The benchmark of the samples: one name."
)
@click.option(
    "--methods",
    default="",
    type=CommaSeparated(),
    help="Methods to compare, separated by commas. [default: all that the inputs allow]",
)
@click.option(
    "--ranker",
    multiple=True,
    type=UserPath(),
    help="NAME.py with a function rank(evidence): adds the method NAME. It is your own code, and runs unconfined.",
)
@click.option(
    "--verifier",
    type=UserPath(),
    help="Folder that 'evalkit train-verifier' wrote: adds the method verifier. It must not have seen these tasks.",
)
@click.option(
    "--verifier-model",
    type=CheckpointName(),
    help="The checkpoint of a verifier that was trained with --model. [default: none]",
)
@click.option(
    "--inputs",
    default="",
    type=CommaSeparated(),
    help="Sources of inputs, separated by commas: tests, examples, mutation, generator. [default: tests; without "
    "--tests: examples,mutation; with --generators also generator]",
)
@click.option(
    "--generators",
    type=UserPath(),
    help="Functions that return inputs, by 'evalkit write-tests --kind inputs'; the sandbox runs them. [default: none]",
)
@click.option(
    "--visible-tests",
    type=click.Choice(["auto", "shown", "hidden"]),
    default="auto",
    show_default=True,
    help="Whether the model saw the examples of the prompt. auto: as the prompts in the sample file say; without them, "
    "docstring examples count as shown.",
)
@click.option(
    "--json", "result", type=UserPath(), help="File of the result. [default: SAMPLES.rerank.json beside the samples]"
)
@click.option("--html", "page", type=UserPath(), help="Also write a page with every problem.")
@click.option(
    "--evidence",
    type=UserPath(),
    help="File of executed calls, which later runs reuse. [default: beside the result]",
)
@click.option("--sanitize", is_flag=True, help="Execute only the program in each sample, without the text around it.")
@click.option("--limit", type=COUNT, help="Rank only the first N problems. Such a score is not the benchmark's.")
@sandbox_options
@click.option("--no-cache", is_flag=True, help="Neither read nor write cached verdicts.")
def rerank(
    samples: tuple[Path, ...],
    tasks: tuple[str, ...],
    result: Path | None,
    page: Path | None,
    evidence: Path | None,
    sandbox: str,
    no_cache: bool,
    **settings: Any,
) -> None:
    """Choose among the programs in SAMPLES by several methods, and score their choices."""
    if len(tasks) != 1:
        raise click.UsageError(f"--tasks: expected one benchmark, found {', '.join(tasks)}; run the command for each")
    if settings["verifier_model"] is not None and settings["verifier"] is None:
        raise click.UsageError("--verifier-model: has no effect without --verifier")
    from evalkit.sandbox.pool import require_address_space

    require_address_space()
    from evalkit import console
    from evalkit.outputs.files import write_json
    from evalkit.outputs.rerank_result import to_dict
    from evalkit.reports.rerank_page import write_rerank_page
    from evalkit.rerank.run import RerankRequest
    from evalkit.rerank.run import rerank as run

    result = result or _default_result(samples[0])
    request = RerankRequest(
        samples=samples,
        task=tasks[0],
        result=result,
        page=page,
        evidence=evidence or beside(result, ".evidence.arrow"),
        strict=sandbox == "strict",
        use_cache=not no_cache,
        **settings,
    )
    with console.ScoreProgress() as progress:
        outcome = run(request, progress)
    content = to_dict(outcome)
    write_json(request.result, content)
    if request.page is not None:
        write_rerank_page(request.page, outcome, content)
    console.print_rerank(outcome, content)
    if outcome.num_failed:
        raise EvalError(
            f"{outcome.num_failed} samples could not be executed on this machine (infra_error), and their problems are "
            "left out of the scores; fix the cause and run the same command again"
        )


def _default_result(samples: Path) -> Path:
    """Return `a.rerank.json` beside `a.jsonl`; `rerank.json` here for standard input and devices."""
    if str(samples) == "-" or samples.parts[:2] in (("/", "dev"), ("/", "proc")):
        return Path("rerank.json")
    name = samples.name.removesuffix(".gz").removesuffix(".jsonl")
    return samples.with_name(f"{name}.rerank.json")

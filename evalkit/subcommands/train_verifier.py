"""The command `evalkit train-verifier`: options, call, and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.options import CheckpointName, CommaSeparated, TaskNames, UserPath, sandbox_options


@click.command("train-verifier")
@click.argument("samples", nargs=-1, required=True, type=UserPath())
@click.option(
    "--tests",
    multiple=True,
    required=True,
    type=UserPath(),
    help="Tests that a model wrote: JSONL, also gzipped. Repeat the option for several files.",
)
@click.option(
    "--tasks",
    default="mbpp:train",
    show_default=True,
    type=TaskNames(),
    help="Benchmarks to train on, separated by commas.",
)
@click.option(
    "--validation",
    help="Benchmark to choose the model on. [default: mbpp:validation for mbpp:train, if SAMPLES hold it; else folds "
    "over the training tasks]",
)
@click.option(
    "--model",
    type=CheckpointName(),
    help="A checkpoint, such as the one that wrote SAMPLES: a linear head reads its embeddings of the programs beside "
    "the features. [default: features alone]",
)
@click.option("--out", required=True, type=UserPath(), help="Folder of the verifier.")
@click.option(
    "--inputs",
    default="tests",
    show_default=True,
    type=CommaSeparated(),
    help="Sources of inputs, separated by commas: tests, mutation. Use the same for 'evalkit rerank'.",
)
@click.option(
    "--evidence",
    type=UserPath(),
    help="File of executed calls, which later runs reuse. [default: evidence.arrow in --out]",
)
@click.option("--sanitize", is_flag=True, help="Execute only the program in each sample, without the text around it.")
@sandbox_options
@click.option("--no-cache", is_flag=True, help="Neither read nor write cached verdicts.")
def train_verifier(
    samples: tuple[Path, ...], out: Path, evidence: Path | None, sandbox: str, no_cache: bool, **settings: Any
) -> None:
    """Train a verifier on the programs in SAMPLES, which 'evalkit rerank --verifier' then uses on other tasks.

    SAMPLES and --tests may hold rows of the training tasks and of the tasks to choose the model on.
    """
    from evalkit.sandbox.pool import require_address_space

    require_address_space()
    from evalkit import console
    from evalkit.rerank.verifier.report import write_report
    from evalkit.rerank.verifier.train import TrainVerifierRequest
    from evalkit.rerank.verifier.train import train_verifier as train

    request = TrainVerifierRequest(
        samples=samples,
        out=out,
        evidence=evidence or out / "evidence.arrow",
        strict=sandbox == "strict",
        use_cache=not no_cache,
        **settings,
    )
    with console.ScoreProgress() as progress:
        trained = train(request, progress)
    paths = write_report(trained)
    console.print_verifier(trained, paths)

"""Command line of `student-train`: turn options into a `Config`, train, map errors to one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from shards.errors import ShardError, first_line
from shards.runtime.command_line import one_line_errors, standard_options
from shards.runtime.interrupts import interruptible
from shards.runtime.settings_options import options_from
from student_train.config import Config, from_dict
from student_train.errors import Interrupted, TrainError
from student_train.evaluation.request import EvaluationRequest

_HELP = """Train a student on a teacher's stored records, with no teacher in memory.

\b
  student-train --shards shards/
  student-train --shards demo/shards/ --out demo/ckpt/ --student-layers 12 --max-steps 200 --control

The same command resumes a stopped run from its newest checkpoint.

\b
  student-train --evaluate MODEL --shards shards/ --json e.json       # train nothing: a model beside the teacher
  student-train --evaluate quantised/ --vs float/ --shards shards/    # two models on the same rows
"""


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@options_from(Config, negations=True)
@options_from(EvaluationRequest)
@click.option(
    "--specialist",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Token ids, one per line: train a specialist that keeps these apart and has one class for all others.",
)
@click.option(
    "--repeat",
    type=click.Path(dir_okay=False),
    metavar="RUN.JSON",
    help="Take all settings from the record of another run; options given beside it win.",
)
@standard_options("student-train")
@click.pass_context
def main(context: click.Context, /, repeat: str | None, specialist: str | None, debug: bool, **settings: Any) -> None:
    """Run the command."""
    with (
        interruptible(),
        one_line_errors(TrainError, ShardError, prefix="student-train", debug=debug, exit_code=_exit_code),
    ):
        if specialist is not None:
            settings["specialist"] = _read_ids(specialist)
        request = EvaluationRequest(**{item.name: settings.pop(item.name) for item in fields(EvaluationRequest)})
        record = _read_record(repeat)
        config = _config(context, record, settings)
        if request.models:
            _evaluate(config, request)
        else:
            _train(config, segments=record.get("segments", []))


def _exit_code(error: Exception) -> int:
    return 130 if isinstance(error, Interrupted) else 1


def _train(config: Config, *, segments: list[dict[str, Any]]) -> None:
    """Train. torch is imported here, so that --help answers at once."""
    # cuBLAS reads this before its first use; without it torch refuses to be deterministic on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with _line_printer(config) as log:
        import torch

        from student_train.training.trainer import run

        try:
            run(config, command=sys.argv, log=log, segments=segments)
        except torch.OutOfMemoryError as error:
            raise TrainError(_out_of_memory(config, error)) from error


def _evaluate(config: Config, request: EvaluationRequest) -> None:
    """Compare models with the teacher, and print the table."""
    with _line_printer(config) as log:
        from student_train.evaluation.evaluate import evaluate, table_lines

        record = evaluate(config, request, command=sys.argv, log=log)
    for line in table_lines(record):
        click.echo(line)


def _out_of_memory(config: Config, error: Exception) -> str:
    """Return the message for a GPU whose memory does not suffice."""
    return (
        f"out of GPU memory ({first_line(error)}); lower --micro-tokens (found {config.micro_tokens}), which leaves "
        "the steps as they are, add --gradient-checkpointing, or free the GPU; checkpoints so far are kept"
    )


def _line_printer(config: Config) -> AbstractContextManager[Callable[[str], None]]:
    """Return what prints log lines: with progress, on the main rank, one that also prints while work lasts."""
    from shards.runtime.heartbeat import Heartbeat

    if config.progress and os.environ.get("RANK", "0") == "0":
        return Heartbeat()
    return nullcontext(partial(click.echo, err=True))


def _read_record(path: str | None) -> dict[str, Any]:
    """Return settings and segments of the record of another run; {} where none is named."""
    if path is None:
        return {}
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"config": dict(record["config"]), "segments": list(record.get("segments", []))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(f"{path}: found no run's record ({error}); expected the run.json of a finished run") from None


def _config(context: click.Context, record: dict[str, Any], settings: dict[str, Any]) -> Config:
    """Return the settings of the command line, or those of a record with the given options in their place."""
    if not record:
        return Config(**settings)
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    return replace(from_dict(record["config"]), **given)


def _read_ids(path: str) -> tuple[int, ...]:
    try:
        return tuple(int(line) for line in Path(path).read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: found no list of ids ({error}); expected one number per line") from None


if __name__ == "__main__":
    main()

"""Command line of `student-train`: turn options into a `Config`, train, map errors to one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from shards.errors import ShardError, first_line
from shards.runtime.command_line import one_line_errors, standard_options
from shards.runtime.interrupts import interruptible
from shards.runtime.settings_options import options_from
from student_train.config import Config
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

\b
  student-train --publish ckpt/ s3://bucket/run --cache-url ../cache  # model, record and scores, for others to repeat
  student-train --repeat s3://bucket/run --out again/                 # fetch record and shards, train, compare
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
    metavar="RUN",
    help="Repeat a run: the run.json of a finished one, or the path or URL of a published one, whose record and shards "
    "are fetched. Its settings hold, options given beside it win, and OUT/repeat.json says whether the two runs are "
    "identical, equivalent or different (exit code 1).",
)
@click.option(
    "--publish",
    nargs=2,
    metavar="RUN URL",
    help="Train nothing: publish the finished run in the folder RUN to a folder or URL (s3://, hf://, ...).",
)
@click.option(
    "--cache-url",
    multiple=True,
    metavar="URL",
    help="With --publish: where others find the shards, also relative to URL (../cache). Default: where the run read "
    "them, if that is a URL.",
)
@click.option(
    "--second-run",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --publish: another run, such as one with another seed, whose distance is stated as the noise.",
)
@standard_options("student-train")
@click.pass_context
def main(
    context: click.Context,
    /,
    repeat: str | None,
    publish: tuple[str, str] | None,
    cache_url: tuple[str, ...],
    second_run: Path | None,
    specialist: str | None,
    debug: bool,
    **settings: Any,
) -> None:
    """Run the command."""
    with (
        interruptible(),
        one_line_errors(TrainError, ShardError, prefix="student-train", debug=debug, exit_code=_exit_code),
    ):
        if specialist is not None:
            settings["specialist"] = _read_ids(specialist)
        request = EvaluationRequest(**{item.name: settings.pop(item.name) for item in fields(EvaluationRequest)})
        if publish is not None:
            _publish(publish, cache_url, second_run, others=[name for name in (repeat, request.evaluate) if name])
            return
        if cache_url or second_run:
            raise TrainError("cache-url and second-run belong to --publish RUN URL; add it, or leave them out")
        if repeat is not None:
            _repeat(repeat, settings, request, given=_given(context, settings))
        elif request.models:
            _evaluate(Config(**settings), request)
        else:
            _train(Config(**settings))


def _exit_code(error: Exception) -> int:
    return 130 if isinstance(error, Interrupted) else 1


def _train(config: Config, *, segments: Sequence[dict[str, Any]] = ()) -> None:
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


def _evaluate(config: Config, request: EvaluationRequest) -> dict[str, Any]:
    """Compare models with the teacher, print the table, and return its record."""
    with _line_printer(config) as log:
        from student_train.evaluation.evaluate import evaluate, table_lines

        record = evaluate(config, request, command=sys.argv, log=log)
    for line in table_lines(record):
        click.echo(line)
    return record


def _repeat(place: str, settings: dict[str, Any], request: EvaluationRequest, *, given: Collection[str]) -> None:
    """Do what the command line asks with the settings of a recorded run, and compare the two runs."""
    from student_train.reproduction.fetch import find_run
    from student_train.reproduction.recorded_run import read_record

    source = find_run(place, log=_print)
    record = read_record(source.record)

    from student_train.reproduction.repeat import compare_with, figures_hold, settings_of

    needs_out = not request.models
    config = settings_of(source, settings, given, needs_out=needs_out, log=_print)
    if request.models:
        evaluation = _evaluate(config, request)
        if not figures_hold(source, request.evaluate, evaluation, log=click.echo):
            raise SystemExit(1)
        return
    _train(config, segments=record.get("segments", []))
    if os.environ.get("RANK", "0") == "0" and not compare_with(source, Path(config.out), log=click.echo):
        raise SystemExit(1)


def _publish(publish: tuple[str, str], cache_urls: tuple[str, ...], second_run: Path | None, others: list[str]) -> None:
    """Publish a run."""
    from student_train.reproduction.publish import PublishRequest, publish_run

    if others:
        raise TrainError(f"publish with {others[0]}: found two things to do, expected one; give one command for each")
    folder, url = publish
    publish_run(
        PublishRequest(folder=Path(folder), url=url, cache_urls=cache_urls, second_run=second_run), log=click.echo
    )


def _print(line: str) -> None:
    click.echo(line, err=True)


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


def _given(context: click.Context, settings: dict[str, Any]) -> set[str]:
    """Return the names of the settings that the command line gives."""
    default = click.core.ParameterSource.DEFAULT
    return {name for name in settings if context.get_parameter_source(name) is not default}


def _read_ids(path: str) -> tuple[int, ...]:
    try:
        return tuple(int(line) for line in Path(path).read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: found no list of ids ({error}); expected one number per line") from None


if __name__ == "__main__":
    main()

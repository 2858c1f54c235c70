"""Command line of `teacher-dump`: parse the options, run the action, print the result, map errors to exit codes."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from shards.errors import ShardError
from shards.runtime.command_line import fail, standard_options
from shards.runtime.settings_options import build_settings, options_from
from teacher_dump.config import DumpConfig
from teacher_dump.errors import DEAD_ENGINE_CODE, DeadEngineError
from teacher_dump.run.signals import Stopped, StopSignals
from teacher_dump.writing.settings import WritingSettings

RESPONSES_NAME = "responses.jsonl"
DEFAULT_MODEL = "codellama-70b"
DEFAULT_DATA = "stdlib"
"""Corpus of a teacher that has no short name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandAction:
    """The action that the command line requests; a dump if it names no other."""

    plan: bool
    machine: str | None
    fetch: bool
    prepare: bool
    check_rows: int | None
    check_file: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        if self.check_rows is not None and (self.plan or self.fetch):
            raise click.UsageError("--check and --plan or --fetch do different things: give one of them")
        if self.check_file is not None and self.check_rows is None:
            raise click.UsageError("--check-file goes with --check N")
        if self.machine is not None and not self.plan:
            raise click.UsageError("--machine goes with --plan")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@standard_options("teacher-dump")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME",
    help="Teacher: codellama-70b, smollm2-135m, any hub id, or a local transformers folder.",
)
@click.option(
    "--data",
    metavar="CORPUS",
    show_default="the model's: The Stack's Python part for codellama-70b",
    help="stdlib, a folder of sources, parquet or JSONL files, or a hub data set [hub:]org/name[@revision][:folder].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("shards/"),
    help="Folder of the cache. The same command with the same settings resumes it.",
)
@options_from(DumpConfig)
@options_from(WritingSettings)
@click.option("--plan", is_flag=True, help="Print tasks, tokens, bytes, time and GPU-hours, and exit; loads no model.")
@click.option(
    "--prepare", is_flag=True, help="Read the corpus, write the list of tasks to --out, and exit; needs no GPU."
)
@click.option(
    "--machine", metavar="NxGPU", show_default="this one", help="With --plan: the machine to plan for, such as 8xH100."
)
@click.option(
    "--check",
    "check_rows",
    type=int,
    metavar="N",
    help="Score N rows of the cache in --out again, compare them with the stored records, and exit.",
)
@click.option(
    "--check-file",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="check.json in --out",
    help="With --check: file for the result.",
)
@click.option("--json", "as_json", is_flag=True, help="With --plan or --check: print one JSON object.")
@click.option("--fetch", is_flag=True, help="Fetch or unpack the teacher's weights, and exit.")
def main(
    *,
    plan: bool,
    machine: str | None,
    fetch: bool,
    prepare: bool,
    check_rows: int | None,
    check_file: Path | None,
    as_json: bool,
    debug: bool,
    **settings: Any,
) -> None:
    """Run a large teacher once over a corpus, and write a small sparse record of its distribution for each token.

    The cache in --out is complete when it holds manifest.json. The same command resumes a run that was killed, and
    never repeats finished tasks. Several workers may share a folder: see --worker and --ray.

    Ctrl-C and SIGTERM abandon the current task (exit codes 130 and 143), SIGUSR1 finishes it first (138). Exit code 75
    means that the engine crashed: run the same command again.

    \b
    teacher-dump --model codellama-70b --out shards/
    teacher-dump --model codellama-70b --plan
    teacher-dump --model smollm2-135m --data stdlib --max-tokens 30000 --out demo/shards/
    teacher-dump --model smollm2-135m --out demo/shards/ --check 16
    teacher-dump --model smollm2-135m --prompts mbpp:train --samples 4 --out demo/responses/
    """
    action = CommandAction(
        plan=plan,
        machine=machine,
        fetch=fetch,
        prepare=prepare,
        check_rows=check_rows,
        check_file=check_file,
        as_json=as_json,
    )
    stop_signals = StopSignals()
    try:
        with stop_signals.handled():
            if _run_action(action, settings, stop_signals):
                stop_signals.first = None  # SIGUSR1 came after the last task
    except ShardError as error:
        if debug:
            raise
        if stop_signals.first in (None, signal.SIGUSR1):  # after another signal, the error is a result of it
            fail(str(error), exit_code=DEAD_ENGINE_CODE if isinstance(error, DeadEngineError) else 1)
    except (Stopped, KeyboardInterrupt):
        stop_signals.first = stop_signals.first or signal.SIGINT
    except EOFError as error:  # click would treat it as Ctrl-D and print "Aborted!"
        raise RuntimeError("a file or stream is truncated, and its reader did not name it") from error
    if stop_signals.first is not None:
        name = signal.Signals(stop_signals.first).name
        click.echo(f"stopped by {name}; finished tasks are kept, the same command resumes from there", err=True)
        sys.exit(128 + stop_signals.first)


def _run_action(action: CommandAction, settings: dict[str, Any], stop_signals: StopSignals) -> bool:
    """Run the requested action, and return whether it is complete."""
    from teacher_dump.model.registry import lookup
    from teacher_dump.writing.prompts.mbpp import with_test_split

    entry = lookup(settings["model"])
    writing = build_settings(WritingSettings, settings)
    if writing.prompts is not None and settings["data"] is not None:
        raise click.UsageError("--prompts and --data: found both, expected one: what to write, or what to record")
    data = settings["data"] or (entry.data if entry else DEFAULT_DATA)
    if writing.prompts is not None:
        data = str(settings["out"] / RESPONSES_NAME)
        settings = {**settings, "decontaminate": with_test_split(settings["decontaminate"], writing.prompts)}
    config = build_settings(DumpConfig, {**settings, "data": data})
    if action.plan:
        _print_plan(config, writing, action)
    elif action.fetch:
        _fetch(config, writing)
    elif action.prepare:
        _prepare(config, writing)
    elif action.check_rows is not None:
        _check(_to_record(config, writing), action.check_rows, action)
    else:
        if writing.prompts is not None and not _write(config, writing, stop_signals):
            return False
        return writing.responses_only or _dump(_to_record(config, writing), stop_signals)
    return True


def _to_record(config: DumpConfig, writing: WritingSettings) -> DumpConfig:
    """Return the settings of the second step. --max-documents is a number of prompts, which the first step obeyed."""
    return config if writing.prompts is None else replace(config, max_documents=None)


def _write(config: DumpConfig, writing: WritingSettings, stop_signals: StopSignals) -> bool:
    """Write the responses, print the result, and return whether they are complete."""
    from shards.format.manifest import MANIFEST_NAME
    from teacher_dump.writing.process import write_in_process
    from teacher_dump.writing.summary import writing_lines

    if (config.out / MANIFEST_NAME).exists() and not writing.responses_only:
        return True  # the responses are recorded
    outcome = write_in_process(config, writing, stop_signals)
    if stop_signals.first is not None:
        return False
    for line in writing_lines(outcome, config):
        click.echo(line)
    return outcome.is_complete


def _dump(config: DumpConfig, stop_signals: StopSignals) -> bool:
    """Run a dump, print its result, and return whether the cache is complete."""
    from shards.runtime.heartbeat import Heartbeat

    with Heartbeat(first="reading the teacher's files and the corpus") as heartbeat:
        from teacher_dump.fidelity.spot_check import SpotCheck
        from teacher_dump.run.callbacks import CallbackGroup
        from teacher_dump.run.dump import dump
        from teacher_dump.run.progress import ProgressBar

        with ProgressBar(heartbeat) as bar:
            outcome = dump(config, CallbackGroup(bar, SpotCheck(heartbeat)), stop_signals)
    if outcome.cache is None:
        if stop_signals.first is None:
            click.echo(
                f"worker {config.worker}: ran {outcome.new_tasks} tasks; {outcome.open_tasks} tasks of other workers "
                "are open, and the worker that runs the last one completes the cache"
            )
        return False
    if outcome.new_tasks == 0:
        click.echo(f"{config.out}: already complete, reused all {outcome.reused_tasks} tasks; nothing was done again")
    elif outcome.reused_tasks:
        click.echo(f"reused {outcome.reused_tasks} finished tasks, ran {outcome.new_tasks}")
    _print_summary(outcome.cache, outcome.counts, bar.summary())
    return True


def _print_summary(cache: Any, counts: dict[str, int], rate: str) -> None:
    from shards.reports.summary import describe, licence_line, summary
    from teacher_dump.corpus.summary import summary_lines

    facts = summary(cache)
    click.echo(describe(facts))
    if rate:
        click.echo(f"{'this run':>10}  {rate}")
    for line in summary_lines(counts, facts["corpus"]["filters"]):
        click.echo(line)
    if facts["teacher"]["restricts_outputs"]:
        click.echo(f"note: {licence_line(facts['teacher'])}")


def _fetch(config: DumpConfig, writing: WritingSettings) -> None:
    from teacher_dump.model.teachers import resolve

    click.echo(f"{config.model}: its weights are in {resolve(config.model, revision=config.revision).folder}")
    if writing.writer is not None:
        click.echo(f"{writing.writer}: its weights are in {resolve(writing.writer).folder}")


def _prepare(config: DumpConfig, writing: WritingSettings) -> None:
    if writing.prompts is not None:
        from teacher_dump.writing.job import prepare_writing

        writing_job = prepare_writing(config, writing)
        prompts = sum(len(task.prompts) for task in writing_job.tasks)
        click.echo(f"{config.out}: {len(writing_job.tasks):,} writing tasks, {prompts:,} prompts")
        return
    from teacher_dump.corpus.summary import summary_lines
    from teacher_dump.run.job import prepare_job

    job = prepare_job(config)
    click.echo(f"{config.out}: {len(job.tasks):,} tasks, {sum(t.num_tokens for t in job.tasks):,} tokens")
    for line in summary_lines(job.counts, job.source.filters()):
        click.echo(line)


def _check(config: DumpConfig, num_rows: int, action: CommandAction) -> None:
    from shards.format.side_files import CHECK_NAME
    from shards.reports.fidelity import check_lines, check_table
    from shards.reports.summary import format_lines
    from shards.storage.atomic import write_atomic
    from teacher_dump.fidelity.check_file import to_bytes
    from teacher_dump.fidelity.rescore import check

    result = check(config, num_rows, log=lambda line: click.echo(line, err=True))
    path = action.check_file or config.out / CHECK_NAME
    # Printed before it is written, so that a full or read-only disk does not lose the result.
    text = f"{check_table(result)}\n\n{format_lines(check_lines(result))}"
    click.echo(json.dumps(result, indent=1) if action.as_json else text)
    write_atomic(path, to_bytes(result))
    if not action.as_json:
        click.echo(f"{path}: written; docs/fidelity.md explains each line")
    if not result["sound"]:
        sys.exit(1)


def _print_plan(config: DumpConfig, writing: WritingSettings, action: CommandAction) -> None:
    if writing.prompts is not None:
        from teacher_dump.writing.cost import estimate_with_writing, writing_plan_lines

        plan = estimate_with_writing(config, writing, action.machine)
        click.echo(json.dumps(plan, indent=1) if action.as_json else "\n".join(writing_plan_lines(plan)))
        return
    from teacher_dump.cost import estimate, plan_lines

    plan = estimate(config, action.machine)
    click.echo(json.dumps(plan, indent=1) if action.as_json else "\n".join(plan_lines(plan)))

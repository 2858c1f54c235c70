"""teacher-dump: run the teacher once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from shards.errors import ShardError
from shards.runtime.machine import DTYPES
from teacher_dump.corpus.cli_options import filter_options, take_filters
from teacher_dump.engines.registry import ENGINE_CHOICES
from teacher_dump.errors import DEAD_ENGINE_CODE, DeadEngineError
from teacher_dump.run.signals import Stop, Stopped

DEFAULT_MODEL = "codellama-70b"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="teacherless")
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
    help="Folder of the cache. Running again with the same settings continues it.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINE_CHOICES),
    default="auto",
    help="auto is vLLM where it is installed, otherwise transformers.",
)
@filter_options
@click.option("--max-tokens", type=int, show_default="all", help="Stop after about this many tokens.")
@click.option("--max-documents", type=int, show_default="all", help="Stop after this many documents.")
@click.option(
    "--seed", type=int, default=0, help="Seed of the documents' order and of the draws; with --check, of the rows."
)
@click.option("--window-tokens", type=int, default=1024, help="Most tokens of a row.")
@click.option(
    "--task-tokens",
    type=int,
    default=1_000_000,
    help="Tokens of a task. Each task becomes one shard; a crash costs at most the task in hand.",
)
@click.option("--chunk-tokens", type=int, default=65_536, help="Tokens of a chunk: what one read returns.")
@click.option(
    "--threshold",
    type=float,
    default=0.04,
    help="Keep every id of at least this probability exactly; draw from the rest.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="auto",
    help="auto: bfloat16 where the GPU or the processor computes in it, else float32.",
)
@click.option(
    "--tensor-parallel-size",
    type=int,
    default=1,
    help="GPUs, or processes on a CPU, that one engine spreads each layer over.",
)
@click.option(
    "--pipeline-parallel-size", type=int, default=1, help="Groups of GPUs, each with its share of the layers."
)
@click.option(
    "--gpu-memory-utilization", type=float, show_default="vLLM's", help="Share of a GPU's memory that vLLM takes."
)
@click.option("--max-num-batched-tokens", type=int, show_default="2048", help="Most tokens of one engine step.")
@click.option(
    "--quantization",
    metavar="NAME",
    show_default="the teacher's own",
    help="Method by which vLLM quantises the weights, such as fp8.",
)
@click.option("--worker", default="1/1", metavar="I/N", help="Be worker I of N: do every N-th task, from the I-th on.")
@click.option("--ray", metavar="ADDRESS", help="Do the tasks on this Ray cluster; `local` starts one here.")
@click.option(
    "--ray-workers", type=int, show_default="as many as the cluster's GPUs hold", help="With --ray: number of engines."
)
@click.option("--revision", help="Revision of a hub teacher.", show_default="pinned for short names, else main")
@click.option("--plan", is_flag=True, help="Print tasks, tokens, bytes, time and GPU-hours, and stop; loads no model.")
@click.option(
    "--prepare", is_flag=True, help="Read the corpus, write the list of tasks to --out, and stop; needs no GPU."
)
@click.option(
    "--machine", metavar="NxGPU", show_default="this one", help="With --plan: the machine to plan for, such as 8xH100."
)
@click.option(
    "--check",
    "check_rows",
    type=int,
    metavar="N",
    help="Score N rows of the cache in --out again, compare them with what is stored, and stop.",
)
@click.option(
    "--check-file",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="check.json in --out",
    help="With --check: where the result goes.",
)
@click.option("--json", "as_json", is_flag=True, help="With --plan or --check: print one JSON object.")
@click.option("--fetch", is_flag=True, help="Fetch or unpack the teacher's weights, and stop.")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def main(
    *,
    data: str | None,
    model: str,
    plan: bool,
    check_rows: int | None,
    check_file: Path | None,
    as_json: bool,
    fetch: bool,
    prepare: bool,
    machine: str | None,
    debug: bool,
    **settings: Any,
) -> None:
    """Run a large teacher once over a corpus and write, per token, a small sparse record of its distribution.

    The cache in --out is complete when manifest.json is there. A run that was killed is continued by the same
    command; what is finished is never done again. Many workers may share a folder: see --worker and --ray.

    Ctrl-C and SIGTERM abandon the task in hand (exit code 130, 143), SIGUSR1 finishes it first (138). Exit code 75
    says that the engine died: run the same command again.

    \b
    teacher-dump --model codellama-70b --out shards/
    teacher-dump --model codellama-70b --plan
    teacher-dump --model smollm2-135m --data stdlib --max-tokens 30000 --out demo/shards/
    teacher-dump --model smollm2-135m --out demo/shards/ --check 16
    """  # fmt: skip
    from teacher_dump.config import DumpConfig
    from teacher_dump.model.teachers import known

    if check_rows is not None and (plan or fetch):
        raise click.UsageError("--check and --plan or --fetch do different things: give one of them")
    if check_file is not None and check_rows is None:
        raise click.UsageError("--check-file goes with --check N")
    if machine is not None and not plan:
        raise click.UsageError("--machine goes with --plan")
    stop, complete = Stop(), True
    try:
        with stop.on_signals():
            entry = known(model)
            filters = take_filters(settings)
            data = data or (entry.data if entry else "stdlib")
            config = DumpConfig(model=model, data=data, filters=filters, **settings)
            if plan:
                _print_plan(config, machine, as_json=as_json)
            elif fetch:
                from teacher_dump.model.teachers import resolve

                click.echo(f"{model}: its weights are in {resolve(model, revision=config.revision).folder}")
            elif prepare:
                _prepare(config)
            elif check_rows is not None:
                _check(config, check_rows, check_file, as_json=as_json)
            else:
                complete = _run(config, stop)
            if complete:
                stop.signal = None  # SIGUSR1 came too late to stop anything
    except ShardError as error:
        if debug:
            raise
        if stop.signal in (None, signal.SIGUSR1):  # else it is how the engine took the signal
            click.echo(f"error: {error}", err=True)
            sys.exit(DEAD_ENGINE_CODE if isinstance(error, DeadEngineError) else 1)
    except (Stopped, KeyboardInterrupt):
        stop.signal = stop.signal or signal.SIGINT
    except EOFError as error:  # click would take it for Ctrl-D and say "Aborted!"
        raise RuntimeError("a file or stream ended before its end, and its reader did not say which") from error
    if stop.signal is not None:
        name = signal.Signals(stop.signal).name
        click.echo(f"stopped by {name}; finished tasks are kept, the same command goes on from there", err=True)
        sys.exit(128 + stop.signal)


def _run(config: Any, stop: Any) -> bool:
    """Dump, say what came of it, and return whether the cache is complete."""
    from shards.reports.summary import describe, licence_line, summary
    from shards.runtime.heartbeat import Heartbeat
    from teacher_dump.corpus.summary import summary as corpus_summary

    with Heartbeat(first="reading the teacher's files and the corpus") as say:
        from teacher_dump.run.dump import dump
        from teacher_dump.run.progress import Bar

        with Bar(say) as bar:
            outcome = dump(config, bar, stop)
    if outcome.cache is None:
        if stop.signal is None:
            click.echo(
                f"worker {config.worker}: did {outcome.new_tasks} tasks; {outcome.open_tasks} of other workers are "
                "open, and whoever does the last one completes the cache"
            )
        return False
    if bar.spot is not None:
        bar.spot.write(outcome.cache)
    facts = summary(outcome.cache)
    if outcome.new_tasks == 0:
        click.echo(f"{config.out}: already complete, reused all {outcome.reused_tasks} tasks; nothing was done again")
    elif outcome.reused_tasks:
        click.echo(f"reused {outcome.reused_tasks} finished tasks, ran {outcome.new_tasks}")
    click.echo(describe(facts))
    if rate := bar.rate():
        click.echo(f"{'this run':>10}  {rate}")
    for line in corpus_summary(outcome.counts, facts["corpus"]["filters"]):
        click.echo(line)
    if facts["teacher"]["restricts_outputs"]:
        click.echo(f"note: {licence_line(facts['teacher'])}")
    return True


def _prepare(config: Any) -> None:
    from teacher_dump.corpus import provenance
    from teacher_dump.corpus.summary import summary as corpus_summary
    from teacher_dump.run.job import prepare

    job = prepare(config)
    click.echo(f"{config.out}: {len(job.work):,} tasks, {sum(t.num_tokens for t in job.work):,} tokens")
    for line in corpus_summary(job.counts, provenance(config.filters)):
        click.echo(line)


def _check(config: Any, num_rows: int, path: Path | None, *, as_json: bool) -> None:
    from shards.reports.fidelity import check_lines, check_table
    from shards.reports.summary import format_lines
    from shards.storage.atomic import write_atomic
    from teacher_dump.fidelity.rescore import CHECK_NAME, check, to_bytes

    found = check(config, num_rows, say=lambda line: click.echo(line, err=True))
    path = path or config.out / CHECK_NAME
    # Shown before it is written: a disk that is full or read-only does not lose what took so long.
    click.echo(
        json.dumps(found, indent=1) if as_json else f"{check_table(found)}\n\n{format_lines(check_lines(found))}"
    )
    write_atomic(path, to_bytes(found))
    if not as_json:
        click.echo(f"{path}: written; docs/fidelity.md explains each line")
    if not found["sound"]:
        sys.exit(1)


def _print_plan(config: Any, machine: str | None, *, as_json: bool) -> None:
    from teacher_dump.cost import estimate, lines

    plan = estimate(config, machine)
    click.echo(json.dumps(plan, indent=1) if as_json else "\n".join(lines(plan)))

"""teacher-dump: run the teacher once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from shards.errors import ShardError

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
    help="stdlib, a folder of sources, parquet or JSONL files, or a hub data set org/name[@revision][:folder].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("shards/"),
    help="Folder of the cache. Running again with the same settings continues it.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "vllm", "transformers"]),
    default="auto",
    help="auto is vLLM where it is installed, otherwise transformers.",
)
@click.option("--max-tokens", type=int, show_default="all", help="Stop after about this many tokens.")
@click.option("--max-documents", type=int, show_default="all", help="Stop after this many documents.")
@click.option("--seed", type=int, default=0, help="Seed of the documents' order and of the draws.")
@click.option("--window-tokens", type=int, default=1024, help="Most tokens of a row.")
@click.option(
    "--task-tokens", type=int, default=1_000_000, help="Tokens of a task: a shard, and what a crash can cost."
)
@click.option("--chunk-tokens", type=int, default=65_536, help="Tokens of a chunk: what one read returns.")
@click.option("--threshold", type=float, default=0.04, help="Ids of at least this probability are kept exactly.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="auto is bfloat16 on a GPU, float32 on a CPU.",
)
@click.option("--tensor-parallel-size", type=int, default=1, help="GPUs that one engine spreads the teacher over.")
@click.option("--revision", help="Revision of a hub teacher.", show_default="pinned for short names, else main")
@click.option("--plan", is_flag=True, help="Print tokens, tasks, bytes and time, and stop; loads no model.")
@click.option("--json", "as_json", is_flag=True, help="With --plan: print one JSON object.")
@click.option("--fetch", is_flag=True, help="Fetch or unpack the teacher's weights, and stop.")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def main(*, data: str | None, model: str, plan: bool, as_json: bool, fetch: bool, debug: bool, **settings: Any) -> None:
    """Run a large teacher once over a corpus and write, per token, a small sparse record of its distribution.

    The cache in --out is complete when manifest.json is there. A run that was killed is continued by the same
    command; what is finished is never done again.

    \b
    teacher-dump --model codellama-70b --out shards/
    teacher-dump --model codellama-70b --plan
    teacher-dump --model smollm2-135m --data stdlib --max-tokens 30000 --out demo/shards/
    """  # fmt: skip
    from teacher_dump.config import DumpConfig
    from teacher_dump.models import known

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        entry = known(model)
        config = DumpConfig(model=model, data=data or (entry.data if entry else "stdlib"), **settings)
        if plan:
            _print_plan(config, as_json=as_json)
        elif fetch:
            from teacher_dump.models import resolve

            click.echo(f"{model}: its weights are in {resolve(model, revision=config.revision).folder}")
        else:
            _run(config)
    except ShardError as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped; finished tasks are kept, the same command goes on from there", err=True)
        sys.exit(130)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _run(config: Any) -> None:
    from shards.inspect import describe, licence_line, summary
    from teacher_dump.dump import dump
    from teacher_dump.progress import Bar

    with Bar() as bar:
        outcome = dump(config, bar)
    facts = summary(outcome.cache)
    if outcome.new_tasks == 0:
        click.echo(f"{config.out}: already complete, reused all {outcome.reused_tasks} tasks; nothing was done again")
    elif outcome.reused_tasks:
        click.echo(f"reused {outcome.reused_tasks} finished tasks, ran {outcome.new_tasks}")
    click.echo(describe(facts))
    for name, count in sorted(outcome.counts.items()):
        click.echo(f"{count:>10,}  {name}")
    if facts["teacher"]["restricts_outputs"]:
        click.echo(f"note: {licence_line(facts['teacher'])}")


def _print_plan(config: Any, *, as_json: bool) -> None:
    from teacher_dump.plan import estimate

    plan = estimate(config)
    if as_json:
        click.echo(json.dumps(plan, indent=1))
        return

    def number(name: str, scale: float = 1, unit: str = "") -> str:
        return "not known" if plan[name] is None else f"{plan[name] / scale:,.{0 if scale == 1 else 2}f}{unit}"

    lines = [
        ("model", plan["model"]),
        ("data", plan["data"]),
        ("engine", plan["engine"]),
        ("tokens", number("tokens")),
        ("tasks", number("tasks")),
        ("bytes", number("bytes", 1e9, " GB")),
    ]
    if "gpu_hours" in plan:
        lines += [("GPU-hours", f"{plan['gpu_hours']:,.0f} on H100"), ("memory", f"{plan['memory_gb']} GB of weights")]
    if "seconds" in plan:
        lines.append(("time", f"{plan['seconds'] / 60:,.0f} min on this machine"))
    for name, text in lines:
        click.echo(f"{name:>10}  {text}")
    click.echo("how:")
    for line in plan["how"]:
        click.echo(f"            {line}")

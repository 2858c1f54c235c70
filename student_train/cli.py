"""The command `student-train`: options become a `Config`, errors one line and an exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from shards.runtime.interrupts import interruptible
from shards.runtime.machine import DTYPES
from student_train.choices import BALANCES, DIVERGENCES, OBJECTIVES, SCHEDULES
from student_train.config import EXPORT_DTYPES, LAYER_CHOICES, Config, from_dict
from student_train.errors import Interrupted, TrainError

_DEFAULT = Config()


def _option(field: str, help_text: str, **more: Any) -> Any:
    """Return an option for a field of Config, with the field's default shown."""
    default = getattr(_DEFAULT, field)
    name = field.replace("_", "-")
    flags = f"--{name}/--no-{name}" if isinstance(default, bool) else f"--{name}"
    kind = {} if isinstance(default, bool) or "type" in more else {"type": type(default)}
    return click.option(flags, field, default=default, show_default=True, help=help_text, **kind, **more)


def _choice(values: tuple[str, ...]) -> dict[str, Any]:
    return {"type": click.Choice(values)}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_option("shards", "Folder or URL of the cache that teacher-dump wrote.", metavar="DIR")
@_option("follow", "Train from a cache that teacher-dump is still writing; needs --max-steps.")
@_option("follow_wait", "Seconds to wait for new shards where training is ahead of the dump.")
@_option("out", "Folder that becomes the student, with the run's record beside it.", metavar="DIR")
@_option(
    "student",
    "teacher, phi-2, tinyllama, a hub id, or a folder. Without it: phi-2 for a Code Llama, else the teacher itself.",
    metavar="NAME",
)
@_option("student_layers", "Layers to keep; 0 keeps all, or half where the student is the teacher itself.")
@_option(
    "layer_choice",
    "Which layers stay: importance drops those that change the hidden state least; even keeps evenly spaced ones.",
    **_choice(LAYER_CHOICES),
)
@_option(
    "objective", "kd: the teacher's records mixed with cross-entropy; sft: cross-entropy alone.", **_choice(OBJECTIVES)
)
@_option(
    "divergence",
    "How the student is compared with the teacher. rs-kd (noisier) and top-k (biased) are for comparison.",
    **_choice(DIVERGENCES),
)
@_option("ce_weight", "Share of cross-entropy in the loss, 0 to 1.")
@_option(
    "temperature",
    "Softens both distributions. Other than 1 it must be stored in the shards, and needs a bucket divergence.",
)
@_option("skew", "Share of the teacher in the mixture of bucket-skew-kl.")
@_option("rs_draws", "Ids that rs-kd draws at each position.")
@_option(
    "across",
    "What a student with another tokenizer learns beside cross-entropy: alm, cells, matched, uld, or alm+ one of them.",
    metavar="LOSS",
)
@_option("balance", "How the parts of that loss are weighed: by gradient norms, or fixed shares.", **_choice(BALANCES))
@_option("control", "Also train, from the same weights on the same steps, with cross-entropy only: OUT/control.")
@_option("max_steps", "Optimiser steps; 0: as many as --epochs hold.")
@_option("epochs", "Passes over the shards, where --max-steps is 0.")
@_option("batch_tokens", "Tokens of an optimiser step, on average.")
@_option("micro_tokens", "Most tokens of one forward pass; a step with more accumulates gradients.")
@_option("learning_rate", "Peak learning rate of AdamW.")
@_option(
    "schedule",
    "cosine: falls to a tenth of the peak; wsd: stays, then falls to zero over the last fifth.",
    **_choice(SCHEDULES),
)
@_option("warmup", "Share of the steps over which the learning rate rises.")
@_option("weight_decay", "AdamW's weight decay, on matrices only.")
@_option("beta2", "Decay of AdamW's second moment.")
@_option("adam_eps", "AdamW's epsilon; larger calms parameters with tiny gradients.")
@_option("clip", "Largest norm of the gradient; 0 does not clip.")
@_option("seed", "Seed of the order of the data and of weights that start fresh.")
@_option("held_out", "Share of documents never trained on.")
@_option("held_out_tokens", "Most held-out tokens to evaluate on.")
@_option("lora_rank", "Rank of low-rank adapters that train in place of the weights; 0 trains all weights.")
@_option("eval_every", "Steps between held-out evaluations while training; 0: before and after only.")
@_option(
    "dtype",
    "Arithmetic; weights and optimiser stay float32. auto: bfloat16 where GPU or processor has it, else float32.",
    **_choice(DTYPES),
)
@_option("export_dtype", "Type of the weights in OUT.", **_choice(EXPORT_DTYPES))
@_option("gradient_checkpointing", "Recompute activations: less memory, a third more time.")
@_option("compile", "Compile the student's layers with torch.compile.")
@_option("save_every", "Steps between checkpoints; 0: only at the end.")
@_option("keep", "How many of the newest checkpoints to keep.")
@_option("device", "auto, cpu, cuda, cuda:1, ...")
@_option("threads", "CPU threads; 0: OMP_NUM_THREADS, or the physical cores that affinity and cgroup allow.")
@_option("prefetch", "Steps prepared ahead by the reading thread.")
@_option("tensorboard", "Write OUT/tb if tensorboard is installed.")
@_option("wandb", "Log to Weights & Biases too; its own variables (WANDB_MODE, ...) apply.")
@_option("progress", "Show progress on the error stream.")
@click.option(
    "--specialist",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Token ids, one a line: train a specialist that keeps these apart and has one class for all others.",
)
@click.option(
    "--repeat",
    type=click.Path(dir_okay=False),
    metavar="RUN.JSON",
    help="Take all settings from the record of another run; options given beside it win.",
)
@click.pass_context
def main(context: click.Context, /, repeat: str | None, specialist: str | None, **settings: Any) -> None:
    """Train a student on a teacher's stored records, with no teacher in memory.

    \b
      student-train --shards shards/
      student-train --shards demo/shards/ --out demo/ckpt/ --student-layers 12 --max-steps 200 --control

    A run that was stopped continues from its newest checkpoint when the same command is given again.
    """
    with interruptible():
        _run(context, repeat, specialist, settings)


def _run(context: click.Context, repeat: str | None, specialist: str | None, settings: dict[str, Any]) -> None:
    """Train. `shards` and torch are imported here, so that --help answers at once."""
    try:
        if specialist is not None:
            settings["specialist"] = _read_ids(specialist)
        record = _record(repeat)
        config = _config(context, record, settings)
    except TrainError as error:
        _fail(context, error)
    from shards.errors import ShardError

    # cuBLAS reads this before its first use; without it torch refuses to be deterministic on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with _speaker(config) as log:
            from student_train.training.trainer import run

            run(config, command=sys.argv, log=log, segments=record.get("segments", []))
    except (TrainError, ShardError) as error:
        _fail(context, error)


def _speaker(config: Config) -> AbstractContextManager[Callable[[str], None]]:
    """Return what prints lines: with progress, on the rank that leads, one that also speaks while work lasts."""
    from shards.runtime.heartbeat import Heartbeat

    if config.progress and os.environ.get("RANK", "0") == "0":
        return Heartbeat()
    return nullcontext(partial(click.echo, err=True))


def _fail(context: click.Context, error: ValueError) -> NoReturn:
    click.echo(f"student-train: {error}", err=True)
    context.exit(130 if isinstance(error, Interrupted) else 1)


def _record(path: str | None) -> dict[str, Any]:
    """Return the record of another run, {} where none is named."""
    if path is None:
        return {}
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"config": dict(record["config"]), "segments": list(record.get("segments", []))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(f"{path}: found no run's record ({error}); expected the run.json of a finished run") from None


def _config(context: click.Context, record: dict[str, Any], settings: dict[str, Any]) -> Config:
    if not record:
        return Config(**settings)
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    return dataclasses.replace(from_dict(record["config"]), **given)


def _read_ids(path: str) -> tuple[int, ...]:
    try:
        return tuple(int(line) for line in Path(path).read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: found no list of ids ({error}); expected one number a line") from None


if __name__ == "__main__":
    main()

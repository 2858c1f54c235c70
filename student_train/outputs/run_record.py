"""The record of a run, `run.json`: settings, data, student, versions, speed and held-out figures."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from student_train.config import Config
from student_train.evaluation.held_out import summary
from student_train.model.loading import Student
from student_train.objectives.base import Objective
from student_train.objectives.row_score import LABELS, RowScore
from student_train.training.hardware import Hardware
from student_train.training.run_context import RunContext
from student_train.training.state import TrainState

RECORD_FORMAT = 1
_CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of this code's repository, where it is a checkout."""


def run_record(
    *,
    config: Config,
    cache: Any,
    student: Student,
    state: TrainState,
    held_out: dict[str, Any],
    command: list[str],
    hardware: Hardware,
) -> dict[str, Any]:
    """Return the record of a finished run, as JSON can hold it.

    Args:
        config: Settings.
        cache: All shards that were trained on.
        student: The student.
        state: State after the last step.
        held_out: What `held_out_record` returned.
        command: Command line.
        hardware: What the run computed with.
    """
    teacher = cache.manifest.teacher
    return {
        "format": RECORD_FORMAT,
        "objective": config.objective,
        "config": config.to_dict(),
        "manifest_sha256": cache.manifest_sha256,
        **({"segments": state.handover.segments} if config.follow else {}),
        "shards": {
            "tokens": cache.tokens,
            "rows": cache.rows,
            "bytes_on_disk": cache.bytes_on_disk,
            "bytes_per_token": cache.bytes_per_token,
            **({"responses": _responses_record(cache)} if cache.manifest.layout.has_responses else {}),
            "teacher": {
                name: getattr(teacher, name) for name in ("name", "repo", "revision", "licence", "weights_sha256")
            },
        },
        "student": _student_record(student, state),
        "versions": versions(),
        "command": command,
        "hardware": hardware.to_dict(),
        "train": _train_record(state),
        "weights": {"checkpoints": state.weights},
        "held_out": held_out,
        **({"noise": _noise(held_out["after"])} if held_out["after"] else {}),
    }


def _noise(after: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return how far a repeated run may lie from this one and count as equivalent, by measure.

    It is half the width of the measure's 95 % interval: what the held-out rows leave open about this run itself.
    """
    margins = {name: (interval["high"] - interval["low"]) / 2 for name, interval in after.items() if name in LABELS}
    return {"from": "held-out intervals", "margins": margins}


def _responses_record(cache: Any) -> dict[str, Any]:
    """Return who wrote the responses of a cache, and how many tokens have a position, where its report counts them."""
    manifest = cache.manifest
    counted = {name: manifest.report[name] for name in ("context_tokens", "positions") if name in manifest.report}
    return {"writer": None if manifest.writer is None else asdict(manifest.writer), **counted}


def _student_record(student: Student, state: TrainState) -> dict[str, Any]:
    return {
        "source": student.source,
        "layers": student.layers,
        **({"layer_choice": student.layer_choice.to_dict()} if student.layer_choice else {}),
        "parameters": count_parameters(student),
        "weights_sha256": state.base.weights_sha256,
        "config_sha256": state.base.config_sha256,
        **({"other_tokenizer": student.other_tokenizer} if student.other_tokenizer else {}),
    }


def _train_record(state: TrainState) -> dict[str, Any]:
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "tokens_per_s": state.tokens / max(state.seconds, 1e-9),
        **state.rows,
        **({"empty_steps": state.empty_steps} if state.empty_steps else {}),
        **({"left_out": state.objective.left_out} if state.objective else {}),
    }


def held_out_record(objective: Objective, before: list[RowScore], after: list[RowScore]) -> dict[str, Any]:
    """Return the held-out part of the record: sizes, and the measures before and after training."""
    return {
        "rows": len(after),
        "tokens": sum(row.tokens for row in after),
        "bytes": sum(row.bytes for row in after),
        "before": summary(before, objective.measures),
        "after": summary(after, objective.measures),
    }


def describe(context: RunContext) -> str:
    """Return one line about what is trained."""
    config, student = context.config, context.student
    parameters = count_parameters(student)
    layers = f", {student.layers} layers kept" if student.layers else ""
    return (
        f"{student.source}{layers}, {parameters / 1e6:,.1f} M parameters; {context.objective.description}; "
        f"{context.total_steps} steps of about {config.batch_tokens} tokens, "
        f"{context.first_leg.plan.steps_per_epoch} to an epoch"
    )


def responses_line(context: RunContext) -> str:
    """Return one line about the tokens of responses that carry loss; "" for documents, or where nobody counted them."""
    manifest = context.first_leg.cache.manifest
    if not manifest.layout.has_responses or "positions" not in manifest.report:
        return ""
    held_out = context.held_out.rows
    context_tokens = sum(row.rows[0].context for row in held_out)
    tokens = sum(len(row.tokens) for row in held_out)
    return (
        f"{manifest.rows:,} responses, {manifest.report['context_tokens']:,} tokens of context, "
        f"{manifest.report['positions']:,} of responses, which alone carry loss; held out are {len(held_out):,} rows, "
        f"{tokens - context_tokens:,} tokens of responses"
    )


def result_line(out: Path, record: dict[str, Any]) -> str:
    """Return one line about what a finished run did and how its held-out figures changed."""
    train, held_out = record["train"], record["held_out"]
    text = f"{out}: {train['steps']} steps, {_tokens_line(record)}, {train['tokens_per_s']:,.0f} tokens/s"
    if held_out["after"] is None:
        return text
    for reason, count in train.get("left_out", {}).items():
        text += f"; {reason}: {count:,}"
    for name, label in LABELS.items():
        if name in held_out["after"]:
            after = held_out["after"][name]
            text += (
                f"; {label} {held_out['before'][name]['mean']:.4f} -> {after['mean']:.4f} "
                f"[{after['low']:.4f}, {after['high']:.4f}]"
            )
    return text + f" on {held_out['tokens']:,} held-out tokens" + _quantised_line(record.get("quantized"))


def _quantised_line(quantised: dict[str, Any] | None) -> str:
    """Return what became of the figures in the quantised copy; "" where there is none."""
    if quantised is None or quantised.get("held_out") is None:
        return ""
    size, whole = (quantised[name] / 1e6 for name in ("bytes", "float_bytes"))
    figures = [
        f"{label} {quantised['held_out'][name]['mean']:.4f}"
        for name, label in LABELS.items()
        if name in quantised["held_out"]
    ]
    return f"; as {quantised['type']}, {size:,.1f} MB in place of {whole:,.1f}: {', '.join(figures)}"


def _tokens_line(record: dict[str, Any]) -> str:
    """Return the tokens with loss; for responses with the rows that they are of."""
    train = record["train"]
    if not record["shards"].get("responses"):
        return f"{train['tokens']:,} tokens"
    text = (
        f"{train['rows']:,} rows, {train['context_tokens']:,} tokens of context, {train['response_tokens']:,} of "
        f"responses, {train['tokens']:,} of the student's tokens with loss"
    )
    return f"{text}, {train['rows_without_loss']:,} rows without" if train["rows_without_loss"] else text


def count_parameters(student: Student) -> int:
    """Return the number of the student's weights. Adapters do not count: they are merged into the weights."""
    return sum(p.numel() for name, p in student.model.named_parameters() if ".lora_" not in name)


def versions() -> dict[str, str]:
    """Return the versions of Python and of packages that compute, and the commit of this code in a checkout."""
    found = {"python": platform.python_version()}
    for name in ("teacherless", "torch", "transformers", "safetensors", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found | {"commit": _commit(_CHECKOUT)}


def _commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        return ""
    try:
        git = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return git.stdout.strip()

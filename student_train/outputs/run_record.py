"""The record of a run, `run.json`: settings, data, student, versions, speed and held-out figures."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from shards.read import Cache
from student_train.evaluation.held_out import by_set, summary
from student_train.evaluation.intervals import Interval, interval_text
from student_train.model.loading import Student
from student_train.objectives.base import Objective
from student_train.objectives.row_score import LABELS, RowScore
from student_train.training.hardware import Hardware
from student_train.training.run_context import RunContext
from student_train.training.state import TrainState
from student_train.weighted_shards import shares_of

RECORD_FORMAT = 1
_CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of this code's repository, where it is a checkout."""


def run_record(
    *,
    context: RunContext,
    state: TrainState,
    held_out: dict[str, Any],
    command: list[str],
    hardware: Hardware,
) -> dict[str, Any]:
    """Return the record of a finished run, as JSON can hold it.

    Args:
        context: The run.
        state: State after the last step.
        held_out: What `held_out_record` returned.
        command: Command line.
        hardware: What the run computed with.
    """
    config = context.config
    caches = context.segments.caches if context.segments else context.first_leg.caches
    return {
        "format": RECORD_FORMAT,
        "objective": config.objective,
        "config": config.to_dict(),
        "manifest_sha256": caches[0].manifest_sha256 if len(caches) == 1 else state.manifest_sha256,
        **({"segments": state.handover.segments} if config.follow else {}),
        **({"caches": _cache_records(context, state, caches)} if len(caches) > 1 else {}),
        "shards": _shards_record(caches[0]) if len(caches) == 1 else _shards_together(caches),
        "student": _student_record(context.student, state),
        "versions": versions(),
        "command": command,
        "hardware": hardware.to_dict(),
        "train": _train_record(state),
        "weights": {"checkpoints": state.weights},
        "held_out": held_out,
        **({"noise": _noise(held_out["after"])} if held_out["after"] else {}),
    }


def _noise(after: dict[str, Interval]) -> dict[str, Any] | None:
    """Return how far a repeated run may lie from this one and count as equivalent, by measure.

    It is half the width of the measure's 95 % interval: what the held-out rows leave open about this run itself. None
    where a single document leaves everything open.
    """
    known = {name: interval for name, interval in after.items() if name in LABELS and "low" in interval}
    margins = {name: (interval["high"] - interval["low"]) / 2 for name, interval in known.items()}
    return {"from": "held-out intervals", "margins": margins} if margins else None


def _shards_record(cache: Cache) -> dict[str, Any]:
    """Return what the record says of one cache."""
    teacher, by_field = cache.manifest.teacher, cache.manifest.report.get("bytes_by_field")
    return {
        "tokens": cache.tokens,
        "rows": cache.rows,
        "bytes_on_disk": cache.bytes_on_disk,
        "bytes_per_token": cache.bytes_per_token,
        **({"bytes_by_field": by_field} if by_field else {}),
        **({"responses": _responses_record(cache)} if cache.manifest.layout.has_responses else {}),
        "teacher": {name: getattr(teacher, name) for name in ("name", "repo", "revision", "licence", "weights_sha256")},
    }


def _shards_together(caches: Sequence[Cache]) -> dict[str, Any]:
    """Return what the record says of several caches as one; `caches` of the record has each."""
    tokens, on_disk = sum(cache.tokens for cache in caches), sum(cache.bytes_on_disk for cache in caches)
    names = dict.fromkeys(cache.manifest.teacher.name for cache in caches)
    return {
        "tokens": tokens,
        "rows": sum(cache.rows for cache in caches),
        "bytes_on_disk": on_disk,
        "bytes_per_token": on_disk / max(1, tokens),
        "teacher": {"name": " + ".join(names)},
    }


def _cache_records(context: RunContext, state: TrainState, caches: Sequence[Cache]) -> list[dict[str, Any]]:
    """Return one entry for each of several caches: identity, share, objective, what was read, and what it is.

    The first two keys are those of `Mixture.entries`; a followed cache has the digest of the shards that were read.
    """
    records = []
    named = zip(context.config.sources, caches, context.batches.caches, state.caches, strict=True)
    for number, (source, cache, spec, entry) in enumerate(named, 1):
        read = {name: state.rows.get(f"{name}/{number}", 0) for name in ("rows", "response_tokens")}
        read_record = {"rows": read["rows"], "tokens_with_record": read["response_tokens"]}
        about = {"manifest_sha256": cache.manifest_sha256, "path": source.path, "objective": spec.kind + 1}
        records.append({**entry, **about, "read": read_record, **_shards_record(cache)})
    return records


def _responses_record(cache: Any) -> dict[str, Any]:
    """Return who wrote the responses of a cache, and how many tokens have a position, where its report counts them."""
    manifest = cache.manifest
    counted = {name: manifest.report[name] for name in ("context_tokens", "positions") if name in manifest.report}
    return {"writer": None if manifest.writer is None else asdict(manifest.writer), **counted}


def _student_record(student: Student, state: TrainState) -> dict[str, Any]:
    return {
        "source": student.source,
        "from_folder": student.from_folder,
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
        **{name: count for name, count in state.rows.items() if "/" not in name},
        **({"empty_steps": state.empty_steps} if state.empty_steps else {}),
        **({"left_out": state.objective.left_out} if state.objective else {}),
    }


def held_out_record(context: RunContext, before: list[RowScore], after: list[RowScore]) -> dict[str, Any]:
    """Return the held-out part of the record: sizes, and the measures before and after training.

    With several caches it is that of all rows, and `caches` has the same of each.
    """
    record = _held_out_part(context.objective, before, after)
    if len(context.held_out) > 1:
        parts = zip(context.held_out, by_set(before, context.held_out), by_set(after, context.held_out), strict=True)
        record["caches"] = [_held_out_part(each.objective, then, now) for each, then, now in parts]
    return record


def _held_out_part(objective: Objective, before: list[RowScore], after: list[RowScore]) -> dict[str, Any]:
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


def cache_lines(context: RunContext) -> list[str]:
    """Return one line about each of several caches: share, passes and objective; [] for one cache."""
    plan, sources = context.first_leg.plan, context.config.sources
    if len(sources) == 1:
        return []
    found, shares, follows = [], shares_of(sources), context.config.follow
    for number, (part, source, spec) in enumerate(zip(plan.parts, sources, context.batches.caches, strict=True)):
        passes = part.rows_per_epoch * context.total_steps / plan.steps_per_epoch / part.num_rows
        share = "" if shares is None else f"{float(shares[number]):.1%} of the tokens, "
        identity = f"manifest {part.manifest_sha256[:12]}"
        if not follows:
            amount = f"{part.rows_per_epoch:,} rows an epoch of {part.num_rows:,}, {passes:.2f} passes"
        elif number == 0:
            identity, amount = "followed", f"{part.num_rows:,} rows so far"
        else:  # the rows of the followed cache that are not written yet may be longer or shorter
            amount = f"{part.num_rows:,} rows, about {passes:.2f} passes"
        found.append(f"{source.path}: {identity}, {share}{amount}, objective {spec.kind + 1}")
    return found


def responses_line(context: RunContext) -> str:
    """Return one line about the tokens of responses that carry loss; "" for documents, or where nobody counted them."""
    if len(context.first_leg.caches) > 1:
        return ""  # run.json has the numbers of each cache
    manifest = context.first_leg.caches[0].manifest
    if not manifest.layout.has_responses or "positions" not in manifest.report:
        return ""
    held_out = context.held_out[0].rows
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
    text += f"{_changes(held_out)} on {held_out['tokens']:,} held-out tokens"
    for number, part in enumerate(held_out.get("caches", ()), 1):
        if part["after"] is not None:
            text += f"; cache {number}{_changes(part)[1:]}"
    return text + _quantised_line(record.get("quantized"))


def _changes(held_out: dict[str, Any]) -> str:
    """Return each measure before and after, each after a semicolon."""
    text = ""
    for name, label in LABELS.items():
        if name in held_out["after"]:
            before, after = held_out["before"][name], held_out["after"][name]
            text += f"; {label} {before['mean']:.4f} -> {interval_text(after)}"
    return text


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

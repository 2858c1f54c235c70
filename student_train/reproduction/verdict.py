"""Say whether a repeated run is the recorded one: identical, equivalent or different.

identical: the digest of the weights is the same at every checkpoint that both runs have, and so is that of the
exported model. equivalent: on the same held-out rows, the paired difference of every measure lies, with its 95 %
interval, within the noise that the record states. Anything else is different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from student_train.evaluation.intervals import DocumentSums, Interval, interval_text, known_figures
from student_train.objectives.row_score import LABELS, Measure
from student_train.reproduction.recorded_run import RecordedRun

IDENTICAL, EQUIVALENT, DIFFERENT = "identical", "equivalent", "different"
_ROUNDING = {"float32": 1e-5, "bfloat16": 1e-2}
"""Relative difference of two losses from which rounding alone does not explain it, by the type of the arithmetic."""
_CONDITIONS = {
    "hardware": ("cpu_capability", "gpu", "threads", "ranks", "dtype", "machine"),
    "versions": ("python", "teacherless", "torch", "transformers", "safetensors", "numpy", "commit"),
}
"""What a run depends on beside its settings, by the part of the record that holds it."""


def compare(recorded: RecordedRun, repeated: RecordedRun, *, noise: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the verdict on a repeated run and its reasons, as JSON can hold them.

    Args:
        recorded: The run that was repeated.
        repeated: The repeated run, with the same settings on the same shards.
        noise: How far the measures may lie apart, as in the record; None where it states nothing.
    """
    weights = _compare_weights(recorded, repeated)
    held_out = _compare_held_out(recorded, repeated, noise)
    if weights["identical"]:
        verdict, why = IDENTICAL, "every weight is the same to the last bit"
    else:
        verdict, why = _verdict_of_measures(held_out)
    return {
        "verdict": verdict,
        "why": why,
        "differences": _condition_differences(recorded.record, repeated.record),
        "weights": weights,
        "losses": _compare_losses(recorded, repeated),
        "held_out": held_out,
        "noise": None if noise is None else noise.get("from"),
    }


def _verdict_of_measures(held_out: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict on runs with other weights, and why."""
    outside = [name for name, entry in held_out.items() if not entry["within"]]
    if not held_out:
        return DIFFERENT, "the weights differ, and no held-out rows of both runs show that it does not matter"
    if not outside:
        return EQUIVALENT, "every held-out measure is within the noise that the record states"
    if any("low" not in held_out[name]["difference"] for name in outside):
        return DIFFERENT, "one held-out document: equivalence cannot be shown"
    return DIFFERENT, f"beyond the noise that the record states: {', '.join(outside)}"


def paired_differences(first: RecordedRun, second: RecordedRun) -> dict[str, Interval]:
    """Return the difference of each measure, second minus first, on the same rows; {} where the rows differ."""
    if not first.rows or first.rows.keys() != second.rows.keys():
        return {}
    keys = sorted(first.rows)
    measures = first.measures
    sums = DocumentSums([document for document, *_ in keys])
    sides = [_columns([run.rows[key] for key in keys], measures) for run in (second, first)]
    return known_figures(dict(zip((m.name for m in measures), sums.ratio_differences(sides[0], sides[1]), strict=True)))


def measured_noise(first: RecordedRun, second: RecordedRun) -> dict[str, Any]:
    """Return the noise between two runs: for each measure the end of its paired interval that is further from 0.

    There is none where the rows differ, or are those of one document.
    """
    differences = paired_differences(first, second)
    margins = {name: max(abs(d["low"]), abs(d["high"])) for name, d in differences.items() if "low" in d}
    return {"from": "a second run", "margins": margins}


def verdict_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the verdict as lines for people."""
    lines = [f"{result['verdict']}: {result['why']}"]
    lines += [f"  {d['what']}: recorded {d['recorded']}, here {d['repeated']}" for d in result["differences"]]
    if result["verdict"] != IDENTICAL:
        if not result["differences"]:
            lines.append("  no difference in versions or hardware explains it")
        lines += _weight_lines(result["weights"]) + _loss_lines(result["losses"])
        lines += [_measure_line(name, entry) for name, entry in result["held_out"].items()]
    return lines


def _compare_weights(recorded: RecordedRun, repeated: RecordedRun) -> dict[str, Any]:
    ours, theirs = repeated.checkpoints, recorded.checkpoints
    steps = sorted(ours.keys() & theirs.keys())
    parted = [step for step in steps if ours[step] != theirs[step]]
    same_export = recorded.exported != "" and recorded.exported == repeated.exported
    return {
        "identical": same_export and not parted,
        "exported": {"recorded": recorded.exported, "repeated": repeated.exported},
        "compared_steps": steps,
        "first_different_step": parted[0] if parted else None,
    }


def _compare_losses(recorded: RecordedRun, repeated: RecordedRun) -> dict[str, Any]:
    """Return the first step at which losses differ at all, and by more than rounding."""
    rounding = _ROUNDING.get(str(recorded.record["config"].get("dtype")), max(_ROUNDING.values()))
    steps = sorted(recorded.losses.keys() | repeated.losses.keys())
    found: dict[str, Any] = {"steps": len(steps), "first_different": None, "beyond_rounding": None}
    for step in steps:
        pair = {"step": step, "recorded": recorded.losses.get(step), "repeated": repeated.losses.get(step)}
        then, now = pair["recorded"], pair["repeated"]
        if then == now:
            continue
        found["first_different"] = found["first_different"] or pair
        if then is None or now is None or not abs(now - then) <= rounding * max(abs(then), abs(now)):
            found["beyond_rounding"] = pair
            break
    return found


def _compare_held_out(
    recorded: RecordedRun, repeated: RecordedRun, noise: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    margins = {} if noise is None else dict(noise["margins"])
    differences = paired_differences(recorded, repeated)
    entries = {}
    for name, difference in differences.items():
        margin = margins.get(name)
        reach = max(map(abs, (difference["mean"], difference.get("low", math.inf), difference.get("high", math.inf))))
        entries[name] = {
            "recorded": recorded.record["held_out"]["after"][name]["mean"],
            "repeated": repeated.record["held_out"]["after"][name]["mean"],
            "difference": difference,
            "margin": margin,
            "within": margin is not None and reach <= margin,
        }
    return entries


def _columns(rows: list[dict[str, Any]], measures: tuple[Measure, ...]) -> tuple[list[list[float]], list[list[float]]]:
    """Return numerators and denominators [rows, measures] of held-out rows."""
    above = [[row[m.numerator] / m.unit for m in measures] for row in rows]
    below = [[row[m.denominator] for m in measures] for row in rows]
    return above, below


def _condition_differences(recorded: Mapping[str, Any], repeated: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for part, names in _CONDITIONS.items():
        for name in names:
            then, now = (record.get(part, {}).get(name) for record in (recorded, repeated))
            if then != now:
                found.append({"what": name, "recorded": then, "repeated": now})
    kept = [record["student"].get("layer_choice", {}).get("kept") for record in (recorded, repeated)]
    if kept[0] != kept[1]:
        found.append({"what": "layers kept", "recorded": kept[0], "repeated": kept[1]})
    return found


def _weight_lines(weights: Mapping[str, Any]) -> list[str]:
    step = weights["first_different_step"]
    return (
        []
        if step is None
        else [f"  the weights differ from step {step} on ({len(weights['compared_steps'])} compared)"]
    )


def _loss_lines(losses: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, text in (("first_different", "the losses part"), ("beyond_rounding", "beyond rounding they part")):
        if pair := losses[key]:
            lines.append(f"  {text} at step {pair['step']}: recorded {pair['recorded']}, here {pair['repeated']}")
    return lines or [f"  the losses of all {losses['steps']} steps are the same"]


def _measure_line(name: str, entry: Mapping[str, Any]) -> str:
    noise = "no noise stated" if entry["margin"] is None else f"noise {entry['margin']:.2g}"
    return (
        f"  {LABELS.get(name, name)}: recorded {entry['recorded']:.6g}, here {entry['repeated']:.6g}, difference "
        f"{interval_text(entry['difference'], '+.2g')}, {noise}"
    )

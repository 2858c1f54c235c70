"""Held-out measures of a training run: labels, and the sums from which paired differences are computed.

To show another measure: add a row to `MEASURES`. Measures that the table does not name are shown under their own name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.reports.training.run_dir import TrainingRun
from evalkit.scoring import stats


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutMeasure:
    """One held-out measure."""

    label: str
    """Name in tables, with the unit."""
    numerator: str = ""
    """Sum over a held-out row, as `held_out.jsonl` names it; "" where the measure is no ratio of sums."""
    denominator: str = "tokens"
    """Sum that the numerator is divided by."""
    factor: float = 1.0
    """Factor from the ratio to the measure's unit."""
    plot_title: str = ""
    """Title of its plot; "" for no plot."""


MEASURES: dict[str, HeldOutMeasure] = {
    "kl": HeldOutMeasure(
        label="held-out KL to teacher, nats/token",
        numerator="kl_sum",
        plot_title="held-out KL to the teacher, nats/token",
    ),
    "chunk_kl": HeldOutMeasure(
        label="held-out KL of spans, nats/span",
        numerator="chunk_kl_sum",
        denominator="chunks",
        plot_title="held-out KL of spans, nats/span",
    ),
    "cell_kl": HeldOutMeasure(
        label="held-out KL of prefix cells, nats/boundary",
        numerator="cell_kl_sum",
        denominator="boundaries",
        plot_title="held-out KL of prefix cells, nats/boundary",
    ),
    "bits_per_byte": HeldOutMeasure(
        label="held-out bits per byte",
        numerator="nll_sum",
        denominator="bytes",
        factor=1.0 / math.log(2.0),
        plot_title="held-out bits per byte",
    ),
    "top1_agreement": HeldOutMeasure(label="held-out top-1 agreement with teacher", numerator="top1_sum"),
    "calibration_error": HeldOutMeasure(label="held-out calibration error (ECE)"),
}
"""Measures by their key in `run.json`, in the order of the table. `chunk_kl` and `cell_kl` compare students with
another tokenizer than the teacher's, `kl` all others."""


def measures_of(run: TrainingRun) -> dict[str, HeldOutMeasure]:
    """Return the measures that the run's record holds, in the order of the table; unknown ones come last."""
    summaries = [run.get("held_out", when) for when in ("before", "after")]
    keys = {key for summary in summaries if isinstance(summary, dict) for key in summary}
    known = {key: measure for key, measure in MEASURES.items() if key in keys}
    unknown = {key: HeldOutMeasure(label=f"held-out {key.replace('_', ' ')}") for key in sorted(keys - MEASURES.keys())}
    return known | unknown


def missing_measures(run: TrainingRun) -> list[str]:
    """Return the keys of the measures that a run of this kind should hold but does not."""
    held = measures_of(run)
    compared = ("chunk_kl", "cell_kl") if held.keys() & {"chunk_kl", "cell_kl"} else ("kl",)
    return [key for key in (*compared, "bits_per_byte", "top1_agreement") if key not in held]


def paired_difference(first: TrainingRun, second: TrainingRun, key: str) -> stats.Estimate | None:
    """Return first - second of a measure, with its paired bootstrap interval over documents.

    None where the runs were not measured on the same rows, or the rows do not hold the measure.
    """
    measure = MEASURES.get(key)
    if measure is None or not measure.numerator:
        return None
    if not first.held_out or first.held_out.keys() != second.held_out.keys():
        return None
    sums_by_document: dict[str, list[float]] = {}
    for place, row in first.held_out.items():
        document, other = place[0], second.held_out[place]
        denominator = _denominator(key, measure, row)
        if measure.numerator not in row or measure.numerator not in other or denominator not in row:
            return None
        sums = sums_by_document.setdefault(document, [0.0, 0.0, 0.0])
        sums[0] += measure.factor * row[measure.numerator]
        sums[1] += measure.factor * other[measure.numerator]
        sums[2] += row[denominator]
    first_sums, second_sums, sizes = zip(*sums_by_document.values(), strict=True)
    return stats.ratio_difference(first_sums, second_sums, sizes)


def _denominator(key: str, measure: HeldOutMeasure, row: Mapping[str, float]) -> str:
    """Return the key of the denominator; across tokenizers agreement is counted over shared boundaries."""
    return "boundaries" if key == "top1_agreement" and "boundaries" in row else measure.denominator

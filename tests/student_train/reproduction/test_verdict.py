"""Tests of the three verdicts, and of what they name."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from student_train.objectives.row_score import LABELS
from student_train.reproduction.recorded_run import RecordedRun
from student_train.reproduction.verdict import compare, measured_noise, paired_differences, verdict_lines


@pytest.fixture
def original(recorded: Path) -> RecordedRun:
    return RecordedRun.read(recorded / "run.json")


def changed(run: RecordedRun, *, kl: float = 0.0, from_step: int | None = None, by: float = 0.0) -> RecordedRun:
    """Return a run with other final weights, a KL that is `kl` higher, and losses that are larger from a step on."""
    record = copy.deepcopy(run.record)
    record["weights"]["exported"] = "0" * 64
    record["weights"]["checkpoints"]["4"] = "0" * 64
    rows = {key: {**row, "kl_sum": row["kl_sum"] + kl * row["tokens"]} for key, row in run.rows.items()}
    losses = {s: loss * (1 + by) if from_step and s >= from_step else loss for s, loss in run.losses.items()}
    return replace(run, record=record, rows=rows, losses=losses)


def verdict(first: RecordedRun, second: RecordedRun) -> dict[str, Any]:
    return compare(first, second, noise=first.record["noise"])


def test_a_run_is_identical_to_itself(original: RecordedRun) -> None:
    found = verdict(original, original)
    assert found["verdict"] == "identical"
    assert found["weights"]["compared_steps"] == [0, 2, 4]
    assert found["losses"] == {"steps": 4, "first_different": None, "beyond_rounding": None}
    assert len(verdict_lines(found)) == 1


def test_other_weights_with_the_same_figures_are_equivalent_and_the_conditions_are_named(original: RecordedRun) -> None:
    margin = original.record["noise"]["margins"]["kl"]
    other = changed(original, kl=0.9 * margin, from_step=2, by=1e-7)
    other.record["hardware"]["cpu_capability"] = "ELSEWHERE"
    other.record["versions"]["torch"] = "1.0"
    found = verdict(original, other)
    assert found["verdict"] == "equivalent"
    assert [d["what"] for d in found["differences"]] == ["cpu_capability", "torch"]
    assert found["weights"]["first_different_step"] == 4
    assert found["losses"]["first_different"]["step"] == 2
    assert found["losses"]["beyond_rounding"] is None
    assert found["held_out"]["kl"]["difference"]["mean"] == pytest.approx(0.9 * margin)
    text = "\n".join(verdict_lines(found))
    assert "cpu_capability: recorded" in text
    assert "the weights differ from step 4 on" in text


def test_a_measure_beyond_the_noise_is_different_and_names_the_step(original: RecordedRun) -> None:
    margin = original.record["noise"]["margins"]["kl"]
    found = verdict(original, changed(original, kl=1.1 * margin, from_step=3, by=0.01))
    assert (found["verdict"], found["why"]) == ("different", "beyond the noise that the record states: kl")
    loss = original.losses[3]
    expected = {"step": 3, "recorded": loss, "repeated": loss * 1.01}
    assert found["losses"]["first_different"] == found["losses"]["beyond_rounding"] == expected
    text = "\n".join(verdict_lines(found))
    assert f"the losses part at step 3: recorded {loss}, here {loss * 1.01}" in text
    assert "no difference in versions or hardware explains it" in text


def test_one_row_far_off_is_no_noise_although_the_mean_is(original: RecordedRun) -> None:
    """The interval of the paired difference counts, not its mean alone."""
    other = changed(original)
    keys = sorted(other.rows)
    for key, sign in ((keys[0], 1), (keys[-1], -1)):
        other.rows[key]["kl_sum"] += sign * 100
    found = verdict(original, other)
    assert abs(found["held_out"]["kl"]["difference"]["mean"]) < 1e-9
    assert found["verdict"] == "different"


@pytest.mark.parametrize("loss", [float("nan"), None])
def test_a_loss_that_is_missing_or_none_parts(original: RecordedRun, loss: float | None) -> None:
    losses = {step: value for step, value in original.losses.items() if step != 3}
    other = replace(changed(original), losses=losses if loss is None else {**losses, 3: loss})
    assert verdict(original, other)["losses"]["beyond_rounding"]["step"] == 3


def test_without_the_same_rows_equivalence_is_not_shown(original: RecordedRun) -> None:
    assert verdict(original, replace(changed(original), rows={}))["verdict"] == "different"
    fewer = dict(list(original.rows.items())[1:])
    assert paired_differences(original, replace(original, rows=fewer)) == {}


def test_without_stated_noise_nothing_is_equivalent(original: RecordedRun) -> None:
    found = compare(original, changed(original), noise=None)
    assert found["verdict"] == "different"


def test_a_second_run_measures_the_noise(original: RecordedRun) -> None:
    noise = measured_noise(original, changed(original, kl=0.5))
    assert noise["from"] == "a second run"
    assert noise["margins"]["kl"] == pytest.approx(0.5)
    assert noise["margins"]["top1_agreement"] == 0.0


@pytest.mark.parametrize("margin", [None, 0.0])
def test_one_held_out_document_shows_no_equivalence(original: RecordedRun, margin: float | None) -> None:
    """Also where an earlier release stated a noise of 0, the width of an interval over one document."""
    first = min(document for document, *_ in original.rows)
    one = replace(original, rows={key: row for key, row in original.rows.items() if key[0] == first})
    noise = None if margin is None else {"from": "held-out intervals", "margins": dict.fromkeys(LABELS, margin)}
    assert compare(one, one, noise=noise)["verdict"] == "identical"
    found = compare(one, changed(one, kl=1e-8), noise=noise)
    assert (found["verdict"], found["why"]) == ("different", "one held-out document: equivalence cannot be shown")
    assert any("difference +1e-08, n" in line for line in verdict_lines(found))
    assert measured_noise(one, changed(one))["margins"] == {}

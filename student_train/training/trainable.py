"""Refuse a run that would train on nothing, before its first step, and count steps without a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from student_train.config import Config
from student_train.data.loader import BatchSpec, Rows, Step, read_step
from student_train.data.segments import Leg
from student_train.errors import TrainError


def num_learned(step: Step) -> int:
    """Return the number of tokens that the student learns from in a step."""
    return sum(batch.targets.counts["ce"] for batch in step.batches)


def require_trainable(config: Config, leg: Leg, batches: BatchSpec) -> None:
    """Raise TrainError where no step of a leg has a token to learn. Mostly only the first step is read.

    Args:
        config: Settings of the run.
        leg: The leg of steps to look at.
        batches: How rows become batches; held-out rows do not.
    """
    rows, first = Rows(leg.cache), leg.plan.first_step
    last = min(leg.last, first + leg.plan.steps_per_epoch)
    if any(num_learned(read_step(rows, leg.plan, batches, step=number)) for number in range(first, last)):
        return
    raise TrainError(
        f"{config.shards}: found no token to train on in {last - first:,} steps, expected at least one: their rows are "
        f"held out (--held-out {config.held_out:g}) or too short to learn from; lower --held-out, take more steps, or "
        "dump more documents"
    )


def require_trained(out: Path, state: dict[str, Any]) -> None:
    """Raise TrainError where a run is over and no step of it had a token to learn."""
    if state["tokens"] == 0:
        raise TrainError(
            f"{out}: trained on no token in {state['step']} steps, expected at least one; lower --held-out, take more "
            "steps, or dump more documents"
        )


def count_empty(out: Path, state: dict[str, Any], *, say: Callable[[str], None]) -> None:
    """Count a step without a token to learn, and say the first; it has no loss, so no line in metrics.jsonl."""
    state["empty_steps"] = state.get("empty_steps", 0) + 1
    if state["empty_steps"] == 1:
        say(
            f"{out}: step {state['step']} has no token to learn (all rows held out or too short): nothing was updated; "
            "more such steps are counted in run.json as empty_steps"
        )

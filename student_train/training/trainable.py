"""Refuse runs that train on nothing."""

from __future__ import annotations

from pathlib import Path

from student_train.data.loader import Rows as CachedRows
from student_train.data.loader import Step, read_step
from student_train.errors import TrainError
from student_train.training.run_context import RunContext
from student_train.training.state import TrainState


def num_labels(step: Step) -> int:
    """Return the number of tokens that the student learns in a step."""
    return sum(batch.targets.counts["ce"] for batch in step.batches)


def require_trainable(context: RunContext) -> None:
    """Check that a step of the first leg has a token to learn. Mostly only the first step is read.

    Raises:
        TrainError: No step has one.
    """
    config, leg = context.config, context.first_leg
    rows, first = CachedRows(leg.caches), leg.plan.first_step
    last = min(leg.last, first + leg.plan.steps_per_epoch)
    if any(num_labels(read_step(rows, leg.plan, context.batches, step=step)) for step in range(first, last)):
        return
    raise TrainError(
        f"{config.shard_paths}: found no token to train on in {last - first:,} steps, expected at least one: their "
        f"rows are held out (--held-out {config.held_out:g}) or too short to learn from; lower --held-out, take more "
        "steps, or dump more documents"
    )


def require_trained(out: Path, state: TrainState) -> None:
    """Check that a finished run has learned a token.

    Raises:
        TrainError: No step had one.
    """
    if state.tokens == 0:
        raise TrainError(
            f"{out}: trained on no token in {state.step} steps, expected at least one; lower --held-out, take more "
            "steps, or dump more documents"
        )

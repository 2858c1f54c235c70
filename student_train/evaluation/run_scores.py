"""Score the student of a run on its held-out rows, with progress and a reaction to signals."""

from __future__ import annotations

from typing import Any

from student_train.data.packing import Batch
from student_train.evaluation.held_out import score
from student_train.objectives.row_score import RowScore
from student_train.outputs.progress import Progress
from student_train.training.distributed import reshard
from student_train.training.run_context import RunContext


def score_run(context: RunContext, title: str, *, step: int) -> list[RowScore]:
    """Return the held-out scores of the student as it is now, of one cache after another. A collective.

    Args:
        context: The run. Its student is in evaluation mode afterwards.
        title: Name of the evaluation, for the progress display.
        step: Steps that the student has done.

    Raises:
        Interrupted: A rank was asked to stop. All ranks raise it after the same batch; nothing is saved here.
    """
    context.distiller.eval()
    total = sum(batch.num_positions for each in context.held_out for batch in each.batches(context.world))
    shown = context.config.progress and total > 0 and context.world.is_main
    with Progress(title, total, log=context.log, unit="tokens", shown=shown) as progress:

        def on_tokens(tokens: int) -> None:
            progress.advance(steps=tokens, tokens=tokens)
            if any(context.world.gather(context.runtime.signals.stop)):
                raise context.interrupted(step)

        def scorer(batch: Batch) -> Any:
            return context.distiller(batch.to(context.world.device), None)

        try:
            scores = [score(each, scorer, world=context.world, on_tokens=on_tokens) for each in context.held_out]
        finally:
            reshard(context.distiller, context.world)
        return [row for rows in scores for row in rows]

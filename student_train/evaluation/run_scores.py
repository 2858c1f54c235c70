"""Score the student of a run on its held-out rows, with progress and a reaction to signals."""

from __future__ import annotations

from typing import Any

from student_train.data.packing import Batch
from student_train.evaluation.held_out import score
from student_train.objectives.row_score import RowScore
from student_train.outputs import checkpoint
from student_train.outputs.progress import Progress
from student_train.training.run_context import RunContext


def score_run(context: RunContext, title: str) -> list[RowScore]:
    """Return the held-out scores of the student as it is now, of one cache after another. A collective.

    Args:
        context: The run. Its student is in evaluation mode afterwards.
        title: Name of the evaluation, for the progress display.

    Raises:
        Interrupted: The process was asked to stop; nothing is lost, as evaluation changes nothing.
    """
    context.distiller.eval()
    total = sum(batch.num_positions for each in context.held_out for batch in each.batches(context.world))
    shown = context.config.progress and total > 0 and context.world.is_main
    with Progress(title, total, log=context.log, unit="tokens", shown=shown) as progress:

        def on_tokens(tokens: int) -> None:
            progress.advance(steps=tokens, tokens=tokens)
            if context.runtime.signals.stop:
                saved = checkpoint.steps(context.out)
                raise context.interrupted(saved[-1] if saved else 0)

        def scorer(batch: Batch) -> Any:
            return context.distiller(batch.to(context.world.device), None)

        scores = [score(each, scorer, world=context.world, on_tokens=on_tokens) for each in context.held_out]
        return [row for rows in scores for row in rows]

"""Write the quantised copy of a finished student and score it on the held-out rows, as it loads from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.read import Cache
from student_train.evaluation.held_out import HeldOutSet, summary
from student_train.evaluation.intervals import Interval
from student_train.evaluation.model_scores import score_model
from student_train.outputs.quantised_export import export_quantised
from student_train.training.distributed import World
from student_train.training.run_context import RunContext


def quantised_record(context: RunContext) -> dict[str, Any]:
    """Return what `run.json` says about the quantised copy, which is written. For the main rank.

    Of several caches, `caches` has the figures of each, in place of `held_out`.

    Raises:
        StudentError: The copy cannot be written or loaded.
    """
    kind, out = context.config.quantize, context.out
    context.log(f"{out}: writing the {kind} copy")
    folder = export_quantised(out, kind)
    record: dict[str, Any] = {
        "type": kind,
        "folder": kind,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "float_bytes": sum(path.stat().st_size for path in out.glob("*.safetensors")),
    }
    scored = [
        _summary(context, cache, held_out, folder)
        for cache, held_out in zip(context.first_leg.caches, context.held_out, strict=True)
    ]
    if len(scored) > 1:
        record["caches"] = scored
    elif scored[0] is not None:
        record["held_out"] = scored[0]
    return record


def _summary(context: RunContext, cache: Cache, held_out: HeldOutSet, folder: Path) -> dict[str, Interval] | None:
    """Return the figures of the copy on the held-out rows of a cache; None without rows."""
    if not held_out.rows:
        return None
    world = World(device=context.world.device)
    scores = score_model(str(folder), context.config, cache, held_out.rows, world=world, log=context.log)
    return summary(scores.rows, scores.measures)

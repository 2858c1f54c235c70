"""Write the quantised copy of a finished student and score it on the held-out rows, as it loads from its folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from student_train.evaluation.held_out import summary
from student_train.evaluation.model_scores import score_model
from student_train.outputs.quantised_export import export_quantised
from student_train.training.distributed import World
from student_train.training.run_context import RunContext


def quantised_record(context: RunContext) -> dict[str, Any]:
    """Return what `run.json` says about the quantised copy, which is written. For the main rank.

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
    if context.held_out.rows:
        config = replace(context.config, quantize="")
        scores = score_model(
            str(folder),
            config,
            context.first_leg.cache,
            context.held_out.rows,
            world=World(device=context.world.device),
            log=context.log,
        )
        record["held_out"] = summary(scores.rows, scores.measures)
    return record

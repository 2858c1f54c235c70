"""What a run hands over to its control and to its continuation, so that all of them train the same student."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from student_train.config import Config
from student_train.objectives.row_score import RowScore
from student_train.pruning import layer_choice
from student_train.pruning.layer_choice import LayerChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """Results of a run's first part that are not computed again."""

    segments: list[dict[str, Any]]
    """Segments of a run that follows a growing cache: the same rows in the same steps."""
    layers: LayerChoice | None = None
    """Layers that the student keeps; None where all stay, or where they are still to be chosen."""
    before: list[RowScore] | None = None
    """Held-out scores before training; None where they are still to be measured."""
    teacher_completions: list[str] | None = None
    """What the teacher wrote; None where its weights were not loaded, or not yet."""

    def as_state(self) -> dict[str, Any]:
        """Return the part of a checkpoint's state that `of_state` reads."""
        return {
            "segments": self.segments,
            "layer_choice": None if self.layers is None else self.layers.to_dict(),
            "before": [asdict(row) for row in self.before or []],
            "teacher_completions": self.teacher_completions,
        }


def of_state(state: dict[str, Any]) -> Handover:
    """Return what the state of a checkpoint holds."""
    choice = state.get("layer_choice")
    return Handover(
        segments=state["segments"],
        layers=layer_choice.from_dict(choice) if choice else None,
        before=[RowScore(**line) for line in state["before"]],
        teacher_completions=state.get("teacher_completions"),
    )


def of_record(record: dict[str, Any]) -> Handover:
    """Return what the record of a finished run holds."""
    choice = record["student"].get("layer_choice")
    return Handover(segments=record.get("segments", []), layers=layer_choice.from_dict(choice) if choice else None)


def settings_of(config: Config, state: dict[str, Any]) -> Config:
    """Return the settings to continue a checkpoint under; one older than `layer_choice` spread its layers evenly."""
    return config if "layer_choice" in state else replace(config, layer_choice="even")

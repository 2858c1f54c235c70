"""State of a run: what its checkpoints hold beside tensors, and what its control takes over.

The keys of `to_dict` are a file format (`state.json`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from student_train.config import Config
from student_train.model.base import BaseDigests
from student_train.objectives.base import ObjectiveState
from student_train.objectives.row_score import RowScore
from student_train.pruning import layer_choice
from student_train.pruning.layer_choice import LayerChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """Results that a run's continuation and its control use again, so that all of them train the same student."""

    segments: list[dict[str, Any]]
    """Segments of a run that follows a growing cache: the same rows in the same steps."""
    layers: LayerChoice | None = None
    """Layers that the student keeps; None where all stay, or where they are not chosen yet."""
    before: list[RowScore] | None = None
    """Held-out scores before training; None where not measured yet."""
    teacher_completions: list[str] | None = None
    """Completions by the teacher; None where its weights were not loaded."""

    def to_dict(self) -> dict[str, Any]:
        """Return the part of a checkpoint's state that `from_state` reads."""
        return {
            "segments": self.segments,
            "layer_choice": None if self.layers is None else self.layers.to_dict(),
            "before": [asdict(row) for row in self.before or []],
            "teacher_completions": self.teacher_completions,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Handover:
        """Return what the state of a checkpoint holds."""
        choice = state.get("layer_choice")
        return cls(
            segments=state["segments"],
            layers=layer_choice.from_dict(choice) if choice else None,
            before=[RowScore(**line) for line in state["before"]],
            teacher_completions=state.get("teacher_completions"),
        )

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Handover:
        """Return what the record of a finished run holds."""
        choice = record["student"].get("layer_choice")
        return cls(segments=record.get("segments", []), layers=layer_choice.from_dict(choice) if choice else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """State after a number of optimiser steps."""

    config: dict[str, Any]
    """Settings of the run."""
    manifest_sha256: str
    """Identity of the data: `Mixture.sha256`."""
    caches: list[dict[str, Any]] = field(default_factory=list)
    """Of several caches, what identifies each (`Mixture.entries`)."""
    base: BaseDigests
    """Digests of the model that the student starts from."""
    handover: Handover
    """Results that are not computed again."""
    step: int = 0
    """Optimiser steps done."""
    tokens: int = 0
    """Positions trained on."""
    seconds: float = 0.0
    """Time spent in steps."""
    empty_steps: int = 0
    """Steps without a label, which updated nothing."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows and tokens that were read, as in `data.loader.Step`."""
    weights: dict[str, str] = field(default_factory=dict)
    """Digest of the parameters that train by step: before the first one, and at each checkpoint since."""
    objective: ObjectiveState | None = None
    """State of the objective, where it has one."""

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON can hold it."""
        objective = {} if self.objective is None else asdict(self.objective)
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            **objective,
            "manifest_sha256": self.manifest_sha256,
            **({"caches": self.caches} if self.caches else {}),
            "config": self.config,
            "base_sha256": self.base.weights_sha256,
            "base_config_sha256": self.base.config_sha256,
            **self.handover.to_dict(),
            **({"empty_steps": self.empty_steps} if self.empty_steps else {}),
            "rows": self.rows,
            "weights": self.weights,
        }

    def resume(self, stored: dict[str, Any]) -> TrainState:
        """Return this state with the progress of a stored one."""
        objective = None
        if "norms" in stored:
            objective = ObjectiveState(norms=stored["norms"], left_out=stored["left_out"])
        return replace(
            self,
            step=stored["step"],
            tokens=stored["tokens"],
            seconds=stored["seconds"],
            empty_steps=stored.get("empty_steps", 0),
            rows=stored.get("rows", {}),
            weights=stored.get("weights", {}),
            objective=objective,
        )


def settings_of(config: Config, stored: dict[str, Any]) -> Config:
    """Return the settings under which a checkpoint continues.

    Checkpoints older than the setting `layer_choice` are of runs that kept evenly spaced layers.
    """
    return config if "layer_choice" in stored else replace(config, layer_choice="even")

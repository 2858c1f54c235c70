"""Settings of `student-train --evaluate`. Every field is a command-line option."""

from __future__ import annotations

from dataclasses import dataclass, field

from student_train.errors import TrainError

ROWS = ("held-out", "all")
"""Rows to evaluate on: those that a run with the same `--held-out` never trains on, or every row of the cache."""


def _option(default: str, help_text: str, **metadata: object) -> str:
    value: str = field(default=default, metadata={"help": help_text, **metadata})
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """What to evaluate, and where the result goes."""

    evaluate: str = _option(
        "",
        "Train nothing: compare a model with the teacher, from the records alone. A short name, a hub id, a folder "
        "(also of quantised weights), or a GGUF file.",
        metavar="MODEL",
    )
    vs: str = _option("", "With --evaluate: a second model on the same rows, and the differences.", metavar="MODEL")
    evaluate_on: str = _option("held-out", "With --evaluate: the rows.", choices=ROWS)
    json: str = _option("", "With --evaluate: file of the result.", metavar="FILE")

    def __post_init__(self) -> None:
        """Raise TrainError where an option needs `--evaluate`."""
        for name, value in (("vs", self.vs), ("json", self.json)):
            if value and not self.evaluate:
                raise TrainError(f"{name} is {value}, which needs --evaluate MODEL; add it, or leave --{name} out")

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(name for name in (self.evaluate, self.vs) if name)

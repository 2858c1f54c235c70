"""A trained verifier: its model, how it is used, and the tasks that it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_text
from evalkit.rerank.evidence import Float64, TaskEvidence
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.verifier.features import feature_matrix
from evalkit.rerank.verifier.models import VerifierModel, probabilities
from evalkit.rerank.verifier.ranker import lever
from evalkit.tasks.base import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenTasks:
    """Tasks that a verifier was trained or tuned on."""

    benchmarks: tuple[str, ...] = ()
    """Names that `--tasks` takes."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Digest of what the model is asked, by task id; see `task_digest`."""

    @classmethod
    def of(cls, benchmarks: Iterable[str], problems: Iterable[Problem]) -> SeenTasks:
        """Return the record of `problems`."""
        tasks = {problem.task_id: task_digest(problem) for problem in problems}
        return cls(benchmarks=tuple(benchmarks), tasks=tasks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """A verifier. It gives each program the probability that it is right."""

    model: VerifierModel
    inputs: tuple[str, ...]
    """Sources of the inputs whose outputs it was trained on."""
    use_log_probs: bool = False
    """Weight programs by their likelihood, where sample files name it, in place of their frequency."""
    trained_on: SeenTasks
    tuned_on: SeenTasks = field(default_factory=SeenTasks)

    def to_dict(self) -> dict[str, Any]:
        """Return what a result records of the verifier."""
        return {
            "trained_on": list(self.trained_on.benchmarks),
            "tuned_on": list(self.tuned_on.benchmarks),
            "tasks": len(self.trained_on.tasks) + len(self.tuned_on.tasks),
        }

    def right(self, evidence: TaskEvidence) -> Float64:
        """Return [P] the probability that each program is right."""
        return probabilities(self.model, feature_matrix(evidence))

    def ranker(self) -> Callable[[TaskEvidence], Ranking]:
        """Return the ranker of this verifier; see `verifier.ranker.lever`."""

        def verifier(evidence: TaskEvidence) -> Ranking:
            return lever(evidence, self.right(evidence), use_log_probs=self.use_log_probs)

        return verifier

    def input_note(self, inputs: tuple[str, ...]) -> str:
        """Return a line if `inputs` are other sources than those of the training; "" if they are the same."""
        if set(inputs) == set(self.inputs):
            return ""
        return (
            f"the verifier was trained with --inputs {','.join(self.inputs)}, and these are {','.join(inputs)}: its "
            "probabilities may be off"
        )

    def refuse_seen(self, problems: Iterable[Problem], label: str) -> None:
        """Refuse tasks on which this verifier was trained or tuned, by id or by content.

        Args:
            problems: The tasks to be scored.
            label: The verifier's folder, for the error.

        Raises:
            EvalError: It has seen some of them; names them.
        """
        asked = list(problems)
        for use, seen in (("trained", self.trained_on), ("tuned", self.tuned_on)):
            digests = set(seen.tasks.values())
            found = [p.task_id for p in asked if p.task_id in seen.tasks or task_digest(p) in digests]
            if found:
                names = ", ".join(found[:5]) + (f" and {len(found) - 5} others" if len(found) > 5 else "")
                raise EvalError(
                    f"{label}: the verifier was {use} on {names}, which is {len(found)} of the {len(asked)} tasks to "
                    "score; a verifier is never scored on tasks that it has seen: name samples of other tasks, or "
                    "train another verifier"
                )


def task_digest(problem: Problem) -> str:
    """Return the digest of what the model is asked: prompt, description and names of functions."""
    return sha256_text("\0".join([problem.prompt, problem.description, *problem.entry_points]))

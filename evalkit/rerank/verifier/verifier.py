"""A trained verifier: its model, how it is used, and the tasks that it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_text
from evalkit.rerank.evidence import Float64, TaskEvidence
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.verifier.features import feature_matrix
from evalkit.rerank.verifier.models import VerifierModel, probabilities
from evalkit.rerank.verifier.ranker import lever
from evalkit.tasks.base import Problem

Embed = Callable[[TaskEvidence], Float64]
"""A function from evidence to [P, D] embeddings; see `verifier.embedding.Embedder`."""


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
class EmbeddingSource:
    """The checkpoint of a verifier's embeddings. A verifier names it, but never decides what is loaded."""

    checkpoint: str
    """Folder or hub id, as it was named in training; for messages only."""
    sha256: str
    """Digest of the checkpoint (`Checkpoint.sha256`)."""
    dimension: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """A verifier. It gives each program the probability that it is right."""

    model: VerifierModel
    inputs: tuple[str, ...]
    """Sources of the inputs whose outputs it was trained on."""
    embedding: EmbeddingSource | None = None
    """The checkpoint whose embeddings follow the features; None for features alone."""
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
            "embedding": None if self.embedding is None else self.embedding.checkpoint,
        }

    def right(self, evidence: TaskEvidence, embed: Embed | None = None) -> Float64:
        """Return [P] the probability that each program is right.

        Args:
            evidence: The problem's evidence.
            embed: Embeddings of `embedding`; None for features alone.
        """
        return probabilities(self.model, rows_of(evidence, embed))

    def ranker(self, embed: Embed | None = None) -> Callable[[TaskEvidence], Ranking]:
        """Return the ranker of this verifier; see `verifier.ranker.lever`."""

        def verifier(evidence: TaskEvidence) -> Ranking:
            return lever(evidence, self.right(evidence, embed), use_log_probs=self.use_log_probs)

        return verifier

    def require_embedding(self, checkpoint: str | None, sha256: str, label: str) -> None:
        """Check the checkpoint that the user names for the embeddings.

        Args:
            checkpoint: Its name; None if the user names none.
            sha256: Its digest; "" if the user names none.
            label: The verifier's folder, for the error.

        Raises:
            EvalError: It is missing, superfluous or another one.
        """
        needed = self.embedding
        if needed is None and checkpoint is not None:
            raise EvalError(f"--verifier-model: {label} was trained without a checkpoint; leave the option out")
        if needed is not None and sha256 != needed.sha256:
            found = "none is named" if checkpoint is None else f"{checkpoint} is another one"
            raise EvalError(
                f"{label}: the verifier reads embeddings of {needed.checkpoint} (sha256 {needed.sha256[:16]}..), and "
                f"{found}; name it with --verifier-model"
            )

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


def rows_of(evidence: TaskEvidence, embed: Embed | None) -> Float64:
    """Return [P, F] the features of each program, followed by its embedding."""
    features = feature_matrix(evidence)
    return features if embed is None else np.concatenate([features, embed(evidence)], axis=1)


def task_digest(problem: Problem) -> str:
    """Return the digest of what the model is asked, without differences in layout."""
    return sha256_text(" ".join((problem.prompt or problem.description).split()))

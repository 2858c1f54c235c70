"""Fit models with scikit-learn, and choose among them on held-out tasks.

Candidates are logistic regressions and boosted trees. The one with the smallest log loss on held-out tasks is chosen:
on tasks that are set apart for it, or else by folds over the training tasks. A task is never on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalkit.errors import EvalError
from evalkit.rerank.evidence import Bool, Float64, TaskEvidence
from evalkit.rerank.verifier.features import FEATURES
from evalkit.rerank.verifier.models import BoostedTrees, LogisticModel, Tree, VerifierModel, probabilities
from evalkit.rerank.verifier.verifier import Embed, rows_of

NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTask:
    """One task to learn from, or to measure on. Axes as in `rerank/evidence.py`."""

    evidence: TaskEvidence
    rows_PF: Float64
    right_P: Bool
    """[P] Whether each program passes the benchmark's tests."""

    @classmethod
    def of(cls, evidence: TaskEvidence, passed_N: Sequence[bool], embed: Embed | None = None) -> LabelledTask:
        """Return a task whose samples have these verdicts."""
        right_P = np.bincount(evidence.program_N, np.array(passed_N), minlength=len(evidence.programs)) > 0
        return cls(evidence=evidence, rows_PF=rows_of(evidence, embed), right_P=right_P)

    @property
    def weight_P(self) -> Float64:
        """[P] Share of the task's samples: each task has the weight 1, as LEVER averages its loss."""
        weight: Float64 = self.evidence.count_P / len(self.evidence.program_N)
        return weight

    @property
    def right_N(self) -> Bool:
        """[N] Whether each sample is right."""
        return self.right_P[self.evidence.program_N]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """The programs of several tasks, one row each."""

    rows_NF: Float64
    right_N: Bool
    weight_N: Float64

    @classmethod
    def of(cls, tasks: Sequence[LabelledTask]) -> TrainingRows:
        """Return the rows of `tasks`."""
        return cls(
            rows_NF=np.concatenate([task.rows_PF for task in tasks]),
            right_N=np.concatenate([task.right_P for task in tasks]),
            weight_N=np.concatenate([task.weight_P for task in tasks]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """A kind of model with its settings."""

    kind: str
    """`logistic` or `trees`."""
    settings: tuple[tuple[str, float], ...]
    """Arguments of scikit-learn's class."""

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value:g}' for name, value in self.settings)})"


LOGISTIC = tuple(ModelChoice(kind="logistic", settings=(("C", c),)) for c in (0.001, 0.01, 0.1, 1.0, 10.0))
HEADS = tuple(
    ModelChoice(kind="head", settings=(("C", c), ("embedding", share)))
    for c in (0.01, 0.1, 1.0)
    for share in (0.01, 0.03, 0.1, 0.3)
)
"""Linear heads on features and embeddings. `embedding` is the scale of the embeddings, relative to the features."""

CANDIDATES = LOGISTIC + tuple(
    ModelChoice(kind="trees", settings=(("n_estimators", trees), ("max_depth", depth)))
    for trees, depth in ((50, 2), (150, 2), (50, 3), (150, 3), (300, 3))
)
"""Models to choose among."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """The chosen model, and what it says of tasks that it was not fitted on."""

    model: VerifierModel
    candidate: ModelChoice
    losses: dict[str, float]
    """Log loss of each candidate on the held-out tasks, in nats."""
    held_out: tuple[tuple[LabelledTask, Float64], ...]
    """Each held-out task, and [P] the probability that each program is right."""


def choose(
    tasks: Sequence[LabelledTask],
    validation: Sequence[LabelledTask],
    *,
    candidates: Sequence[ModelChoice] = CANDIDATES,
) -> Fitted:
    """Fit all candidates and choose one.

    Args:
        tasks: Training tasks.
        validation: Tasks to choose on; empty to choose by folds over the training tasks.
        candidates: What to choose among.

    Raises:
        EvalError: Training tasks hold only right or only wrong programs, or are too few for folds.
    """
    _require_both(tasks)
    if validation:
        splits = [(list(tasks), list(validation))]
    else:
        splits = _folds(tasks)
    losses, held_out = {}, {}
    for candidate in candidates:
        predicted: list[tuple[LabelledTask, Float64]] = []
        for fitted_on, held in splits:
            model = fit(candidate, fitted_on)
            predicted += [(task, probabilities(model, task.rows_PF)) for task in held]
        held_out[candidate] = tuple(predicted)
        losses[candidate] = log_loss(predicted)
    best = min(candidates, key=lambda candidate: losses[candidate])
    return Fitted(
        model=fit(best, tasks),
        candidate=best,
        losses={str(candidate): loss for candidate, loss in losses.items()},
        held_out=held_out[best],
    )


def _require_both(tasks: Sequence[LabelledTask]) -> None:
    if not tasks:
        raise EvalError("no training task could be executed on this machine (infra_error); run the command again")
    right = {bool(mark) for task in tasks for mark in task.right_P}
    if len(right) < 2:
        which = "right" if True in right else "wrong"
        raise EvalError(
            f"every program of the {len(tasks)} training tasks is {which}; expected right and wrong ones; name more "
            "samples"
        )


def _folds(tasks: Sequence[LabelledTask]) -> list[tuple[list[LabelledTask], list[LabelledTask]]]:
    """Return (fitted on, held out) of each fold; tasks are dealt at random, with a fixed seed."""
    fold_N = np.random.default_rng(0).permutation(len(tasks)) % NUM_FOLDS
    folds = []
    for fold in range(NUM_FOLDS):
        fitted_on = [task for task, own in zip(tasks, fold_N, strict=True) if own != fold]
        held = [task for task, own in zip(tasks, fold_N, strict=True) if own == fold]
        if not held:
            raise EvalError(f"{len(tasks)} training tasks are too few, expected {NUM_FOLDS} or more; name more samples")
        _require_both(fitted_on)
        folds.append((fitted_on, held))
    return folds


def log_loss(predicted: Sequence[tuple[LabelledTask, Float64]]) -> float:
    """Return the mean over tasks of the mean log loss of a task's samples, in nats."""
    losses = []
    for task, right_P in predicted:
        chance_P = np.clip(np.where(task.right_P, right_P, 1.0 - right_P), 1e-12, None)
        losses.append(-float(task.weight_P @ np.log(chance_P)))
    return float(np.mean(losses))


def fit(candidate: ModelChoice, tasks: Sequence[LabelledTask]) -> VerifierModel:
    """Fit a candidate on the programs of `tasks`."""
    rows = TrainingRows.of(tasks)
    settings = dict(candidate.settings)
    if candidate.kind in ("logistic", "head"):
        return _logistic(rows, C=settings["C"], embedding_scale=settings.get("embedding", 1.0))
    return as_boosted_trees(fit_trees(rows, settings), rows.rows_NF.shape[1])


def _logistic(rows: TrainingRows, *, C: float, embedding_scale: float) -> LogisticModel:
    """Fit a logistic regression on standardised features; a constant feature has the scale 1.

    Args:
        rows: The rows; columns after the features are embeddings.
        C: Inverse strength of the penalty on weights.
        embedding_scale: Standard deviation that embeddings are scaled to. A small one penalises their weights more.
    """
    from sklearn.linear_model import LogisticRegression

    mean_F = np.average(rows.rows_NF, axis=0, weights=rows.weight_N)
    scale_F = np.sqrt(np.average((rows.rows_NF - mean_F) ** 2, axis=0, weights=rows.weight_N))
    scale_F[scale_F < 1e-6] = 1.0
    scale_F[len(FEATURES) :] /= embedding_scale
    regression = LogisticRegression(max_iter=2000, C=C)
    regression.fit((rows.rows_NF - mean_F) / scale_F, rows.right_N, sample_weight=rows.weight_N)
    return LogisticModel(
        mean_F=mean_F,
        scale_F=scale_F,
        weight_F=regression.coef_[0].astype(np.float64),
        bias=float(regression.intercept_[0]),
    )


def fit_trees(rows: TrainingRows, settings: dict[str, Any]) -> Any:
    """Return scikit-learn's boosted trees, fitted."""
    from sklearn.ensemble import GradientBoostingClassifier

    trees = GradientBoostingClassifier(
        learning_rate=0.05,
        subsample=0.7,
        max_features=0.5,
        min_samples_leaf=10,
        random_state=0,
        **{name: int(value) for name, value in settings.items()},
    )
    return trees.fit(rows.rows_NF, rows.right_N, sample_weight=rows.weight_N)


def as_boosted_trees(fitted: Any, num_features: int) -> BoostedTrees:
    """Return the plain arrays of scikit-learn's boosted trees."""
    share = float(fitted.init_.class_prior_[1])
    trees = []
    for estimator in fitted.estimators_[:, 0]:
        nodes = estimator.tree_
        leaf_M = nodes.children_left < 0
        trees.append(
            Tree(
                feature_M=np.where(leaf_M, -1, nodes.feature).astype(np.int64),
                threshold_M=np.where(leaf_M, 0.0, nodes.threshold),
                left_M=nodes.children_left.astype(np.int64),
                right_M=nodes.children_right.astype(np.int64),
                value_M=np.where(leaf_M, fitted.learning_rate * nodes.value[:, 0, 0], 0.0),
            )
        )
    return BoostedTrees(num_features=num_features, bias=float(np.log(share / (1.0 - share))), trees=tuple(trees))

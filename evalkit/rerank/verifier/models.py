"""Models of a verifier: a logistic regression, or boosted trees, as plain arrays. numpy alone predicts with them.

scikit-learn fits them (`verifier/fit.py`); their predictions equal its own to 1e-9. Shape suffixes: N rows, F features,
M nodes of a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.rerank.evidence import Float64, Int64


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticModel:
    """A logistic regression on standardised features."""

    mean_F: Float64
    scale_F: Float64
    """Divisor of each feature; positive."""
    weight_F: Float64
    bias: float

    @property
    def num_features(self) -> int:
        """Number of features that a row has."""
        return len(self.weight_F)

    def log_odds(self, rows_NF: Float64) -> Float64:
        """Return [N] log-odds that each row is right."""
        return ((rows_NF - self.mean_F) / self.scale_F) @ self.weight_F + self.bias


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """A regression tree of M nodes. The children of a node come after it, so that every walk ends."""

    feature_M: Int64
    """Feature that a node asks; -1 for a leaf."""
    threshold_M: Float64
    """A row goes left if its feature, as float32, is at most this."""
    left_M: Int64
    right_M: Int64
    value_M: Float64
    """Log-odds that a leaf adds."""

    def values(self, rows_NF: Float64) -> Float64:
        """Return [N] the value of the leaf that each row reaches."""
        rows = rows_NF.astype(np.float32)  # scikit-learn's trees compare in this precision
        node_N = np.zeros(len(rows), np.int64)
        open_N = np.arange(len(rows))
        while len(open_N):
            open_N = open_N[self.feature_M[node_N[open_N]] >= 0]
            nodes = node_N[open_N]
            goes_left = rows[open_N, self.feature_M[nodes]] <= self.threshold_M[nodes]
            node_N[open_N] = np.where(goes_left, self.left_M[nodes], self.right_M[nodes])
        return self.value_M[node_N]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoostedTrees:
    """A sum of trees."""

    num_features: int
    bias: float
    trees: tuple[Tree, ...]

    def log_odds(self, rows_NF: Float64) -> Float64:
        """Return [N] log-odds that each row is right."""
        total = np.full(len(rows_NF), self.bias)
        for tree in self.trees:
            total += tree.values(rows_NF)
        return total


VerifierModel = LogisticModel | BoostedTrees


def probabilities(model: VerifierModel, rows_NF: Float64) -> Float64:
    """Return [N] the probability that each row is right, in (0, 1)."""
    log_odds = np.clip(model.log_odds(rows_NF), -700.0, 700.0)
    return 1.0 / (1.0 + np.exp(-log_odds))

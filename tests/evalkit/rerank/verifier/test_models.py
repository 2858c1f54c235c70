"""Plain models against scikit-learn's predictions."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.rerank.verifier.fit import TrainingRows, as_boosted_trees, fit_trees
from evalkit.rerank.verifier.models import LogisticModel, Tree, probabilities

pytest.importorskip("sklearn")


def random_rows(seed: int, count: int = 400, width: int = 6) -> TrainingRows:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, width)) * 10.0 ** generator.integers(-3, 4, size=width)
    rows[:, 0] = generator.integers(0, 3, size=count) / 3  # many equal values, not exact in float32
    right = rows[:, 0] + generator.normal(size=count) > 0.5
    return TrainingRows(rows_NF=rows, right_N=right, weight_N=generator.uniform(0.1, 1, size=count))


@pytest.mark.parametrize("seed", [0, 1])
def test_trees_predict_what_scikit_learn_predicts(seed: int) -> None:
    rows = random_rows(seed)
    fitted = fit_trees(rows, {"n_estimators": 40, "max_depth": 3})
    model = as_boosted_trees(fitted, rows.rows_NF.shape[1])
    other = np.concatenate([random_rows(seed + 10).rows_NF, rows.rows_NF, np.zeros((1, 6)), np.full((1, 6), 1e12)])
    assert probabilities(model, other) == pytest.approx(fitted.predict_proba(other)[:, 1], abs=1e-9)
    assert model.log_odds(other) == pytest.approx(fitted.decision_function(other), abs=1e-9)
    assert len({*probabilities(model, other).round(6)}) > 20


def test_a_logistic_model_predicts_what_scikit_learns_pipeline_predicts() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = random_rows(3)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.3))
    pipeline.fit(
        rows.rows_NF,
        rows.right_N,
        standardscaler__sample_weight=rows.weight_N,
        logisticregression__sample_weight=rows.weight_N,
    )
    scaler, regression = pipeline[0], pipeline[1]
    model = LogisticModel(
        mean_F=scaler.mean_, scale_F=scaler.scale_, weight_F=regression.coef_[0], bias=float(regression.intercept_[0])
    )
    other = random_rows(4).rows_NF
    assert probabilities(model, other) == pytest.approx(pipeline.predict_proba(other)[:, 1], abs=1e-9)


def test_extreme_log_odds_stay_probabilities() -> None:
    model = LogisticModel(mean_F=np.zeros(1), scale_F=np.full(1, 1e-9), weight_F=np.full(1, 1e12), bias=0.0)
    found = probabilities(model, np.array([[1e12], [-1e12], [0.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_a_tree_of_a_single_leaf_has_its_value() -> None:
    leaf = Tree(
        feature_M=np.array([-1]),
        threshold_M=np.zeros(1),
        left_M=np.array([-1]),
        right_M=np.array([-1]),
        value_M=np.array([0.7]),
    )
    assert leaf.values(np.zeros((3, 2))).tolist() == [0.7, 0.7, 0.7]
    assert leaf.values(np.zeros((0, 2))).tolist() == []

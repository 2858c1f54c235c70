"""The report of a training: `report.json` and `report.html` beside the verifier."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.outputs.files import write_json
from evalkit.outputs.result import versions
from evalkit.rerank.verifier.features import FEATURES
from evalkit.rerank.verifier.models import LogisticModel, VerifierModel
from evalkit.rerank.verifier.train import TrainedVerifier

FORMAT = 1
"""Version of the report's format."""

REPORT_FILE, PAGE_FILE = "report.json", "report.html"

SHOWN_FEATURES = 15
"""Features that the page lists."""


def to_dict(trained: TrainedVerifier) -> dict[str, Any]:
    """Return the JSON report."""
    request, verifier = trained.request, trained.verifier
    is_linear = isinstance(verifier.model, LogisticModel)
    return {
        "format": FORMAT,
        "kind": "train-verifier",
        "verifier_sha256": trained.sha256,
        "trained_on": {"benchmarks": list(verifier.trained_on.benchmarks), "tasks": len(verifier.trained_on.tasks)},
        "tuned_on": {"benchmarks": list(verifier.tuned_on.benchmarks), "tasks": len(verifier.tuned_on.tasks)},
        "measured_on": "the tasks that it was tuned on" if verifier.tuned_on.tasks else "folds of the training tasks",
        "quality": trained.quality.to_dict(),
        "model": {"chosen": str(trained.fitted.candidate), "log_loss": trained.fitted.losses},
        "importance_is": "weight on the scaled feature" if is_linear else "share of splits",
        "features": importance(verifier.model),
        "embedding": None if verifier.embedding is None else asdict(verifier.embedding),
        "inputs": list(verifier.inputs),
        "use_log_probs": verifier.use_log_probs,
        "samples": [file.to_dict() for file in trained.samples.files],
        "tests": [str(path) for path in request.tests],
        "sanitized": request.sanitize,
        "evidence": trained.counts.to_dict(),
        "left_out": trained.num_failed,
        "versions": versions(),
        "command": sys.argv,
    }


def importance(model: VerifierModel) -> dict[str, float]:
    """Return what each feature counts, the most first; embeddings are left out.

    For a logistic regression, its weight times its standard deviation; for trees, its share of the splits.
    """
    if isinstance(model, LogisticModel):
        values = model.weight_F
    else:
        asked = np.concatenate([tree.feature_M[tree.feature_M >= 0] for tree in model.trees])
        values = np.bincount(asked, minlength=model.num_features) / max(1, len(asked))
    values = values[: len(FEATURES)]
    order = np.argsort(-np.abs(values), kind="stable")
    return {FEATURES[feature]: float(values[feature]) for feature in order}


def write_report(trained: TrainedVerifier) -> dict[str, Path]:
    """Write the report and its page into the verifier's folder; return the paths by what they hold.

    Without jinja2 and matplotlib there is no page.

    Raises:
        EvalError: A file cannot be written.
    """
    content = to_dict(trained)
    folder = trained.request.out
    write_json(folder / REPORT_FILE, content)
    paths = {"verifier": folder, "report": folder / REPORT_FILE}
    if _can_draw():
        from evalkit.reports.render import render
        from evalkit.reports.training.plots import reliability_plot

        bins = [(item.predicted, item.right, item.samples) for item in trained.quality.reliability]
        render(
            folder / PAGE_FILE,
            "verifier.html.j2",
            report=content,
            name=folder.resolve().name,
            plot=reliability_plot(bins),
            features=list(content["features"].items())[:SHOWN_FEATURES],
        )
        paths["page"] = folder / PAGE_FILE
    return paths


def _can_draw() -> bool:
    """Return whether the libraries of the page are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jinja2", "matplotlib"))

"""Find what a model does to its logits after the output projection: nothing, a scale, a soft cap, or both.

Granite, Cohere and Falcon-H1 scale their logits; Gemma caps them at c by c tanh(x / c). The fused losses apply these
maps and their derivatives. A model with any other map is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from student_train.errors import StudentError
from student_train.model.probe import MODEL_ERRORS, does_not_run, last_hidden, probing, random_ids, require_finite

_TOLERANCE = 1e-4
"""Largest accepted difference of two logits, relative to the largest logit."""
_LARGE = 100.0
"""Size to which projections are raised during the search: those of a fresh model are too small to show a cap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitMap:
    """The map from projections x to logits: c tanh(s x / c), or s x without a cap."""

    scale: float = 1.0
    """s."""
    cap: float = 0.0
    """c; 0 without a cap."""

    def apply(self, logits: torch.Tensor, *, needed: bool = False) -> torch.Tensor | None:
        """Turn projections into logits, in place.

        Args:
            logits: The projections.
            needed: Whether the derivative is needed.

        Returns:
            The derivative, where it is needed and not 1; else None.
        """
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.cap:
            logits.div_(self.cap).tanh_()
            slope = logits.square().neg_().add_(1.0).mul_(self.scale) if needed else None
            logits.mul_(self.cap)
            return slope
        return logits.new_tensor(self.scale) if needed and self.scale != 1.0 else None


PLAIN = LogitMap()
"""The map of most models: projections are logits."""


def find_logit_map(model: Any) -> LogitMap:
    """Return what `model` does to its logits after the projection.

    Raises:
        StudentError: It is neither a scale nor a soft cap that its configuration names.
    """
    ids = random_ids(model, 1, 8)
    head = model.get_output_embeddings()
    try:
        with probing(model):
            hidden = last_hidden(model, ids)
            require_finite(model, hidden)
            projected = head(hidden)[0].float()
            factor = max(1.0, _LARGE / max(float(projected.abs().max()), 1e-6))
            with _enlarged_input(head, factor) as calls:
                expected = model(input_ids=ids, use_cache=False).logits[0].float()
                if calls:  # a model that multiplies by the matrix itself never calls the module
                    projected = head(hidden)[0].float()
    except StudentError:
        raise
    except MODEL_ERRORS as error:
        raise does_not_run(model, error) from None
    require_finite(model, expected)
    candidates = [(cap, fit) for cap in (0.0, *_positive_settings(model, "cap")) for fit in (False, True)]
    for cap, fit in candidates if projected.shape == expected.shape else ():
        candidate = LogitMap(scale=_scale(model, projected, expected, cap) if fit else 1.0, cap=cap)
        logits = projected.clone()
        candidate.apply(logits)
        if float((logits - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max() + 1e-9):
            return candidate
    raise StudentError(
        f"student: found a {type(model).__name__} that changes its logits after the projection, expected a plain "
        "projection, a scale or a soft cap; choose another student"
    )


@contextmanager
def _enlarged_input(head: Any, factor: float) -> Iterator[list[float]]:
    """Multiply the input of the output projection by `factor`; yield a list with an entry for each of its calls."""
    calls: list[float] = []

    def enlarge(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        calls.append(factor)
        return (args[0] * factor, *args[1:])

    hook = head.register_forward_pre_hook(enlarge)
    try:
        yield calls
    finally:
        hook.remove()


def _scale(model: Any, projected: torch.Tensor, expected: torch.Tensor, cap: float) -> float:
    """Return the factor between projections and logits; the configuration's own number where one fits."""
    if cap:  # only where tanh is far from saturation
        inside = expected.abs() < 0.9 * cap
        expected, projected = cap * torch.atanh(expected[inside] / cap), projected[inside]
    x, y = projected.double().flatten(), expected.double().flatten()
    fitted = float(x @ y / (x @ x).clamp_min(1e-300))
    named = [1.0, *(form for value in _positive_settings(model, "") for form in (value, 1.0 / value))]
    return next((value for value in named if abs(value - fitted) <= 1e-5 * abs(fitted)), fitted)


def _positive_settings(model: Any, part: str) -> list[float]:
    """Return the positive numbers of the text configuration with `part` in their names."""
    settings = vars(model.config.get_text_config()).items()
    return [float(v) for name, v in settings if part in name and type(v) in (int, float) and v > 0]


def require_projection(model: Any) -> None:
    """Raise StudentError where the output projection is not a matrix, or an empty one."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or weight.numel() == 0:
        raise StudentError(
            f"student: found a {type(model).__name__} without an output projection, expected a matrix from hidden "
            "states to token ids; choose a causal language model"
        )

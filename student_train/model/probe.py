"""Short forward passes that compare two ways of running one model.

A probe runs a few dozen random ids. Local attention is narrowed meanwhile, so that short rows extend beyond a window of
thousands of tokens. Weights, configuration and mode are restored afterwards.

Shapes: B batch, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from shards.errors import first_line
from student_train.errors import StudentError
from student_train.model.parts import decoder_of

TOLERANCE = 1e-3
"""Largest accepted difference of two hidden states, relative to the largest value. Rounding stays below 1e-5."""
MODEL_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What models raise on settings, inputs or adapters that they do not support."""
NARROW = 8
"""Width of local attention during a probe, in tokens."""
_WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size")
"""Settings that hold the width of local attention."""


def random_ids(model: Any, *shape: int, seed: int = 0) -> torch.Tensor:
    """Return random int64 ids of a shape that the embedding of `model` has, on its device."""
    generator = torch.Generator().manual_seed(seed)
    count = len(model.get_input_embeddings().weight)
    return torch.randint(min(8, count - 1), count, shape, generator=generator).to(device_of(model))


def device_of(model: Any) -> torch.device:
    """Return the device of the weights of `model`."""
    device: torch.device = next(model.parameters()).device
    return device


@contextmanager
def probing(*models: Any, longest: int | None = None) -> Iterator[None]:
    """Run models without gradients and dropout, with local attention narrowed to `NARROW` tokens.

    Args:
        *models: The models.
        longest: Tokens of the longest row. Attention over at least as many is not local and does not change. None
            where unknown.
    """
    modes = [model.training for model in models]
    restored: list[tuple[Any, str, int]] = []
    try:
        for model in models:
            model.eval()
            for target in _modules_and_configs(model):
                for name in _WINDOWS:
                    width = target.__dict__.get(name)
                    if type(width) is int and NARROW < width < (longest or width + 1):
                        restored.append((target, name, width))
                        setattr(target, name, NARROW)
        with torch.no_grad():
            yield
    finally:
        for target, name, width in restored:
            setattr(target, name, width)
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def _modules_and_configs(model: Any) -> list[Any]:
    """Return the modules of `model` and their configurations, each once."""
    by_id: dict[int, Any] = {}
    for module in model.modules():
        by_id[id(module)] = module
        config = getattr(module, "config", None)
        if config is not None:
            by_id[id(config)] = config
        if config is not None and hasattr(config, "get_text_config"):
            text_config = config.get_text_config()
            by_id[id(text_config)] = text_config
    return list(by_id.values())


def last_hidden(model: Any, ids_BT: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Return the hidden states [B, T, H] that the output projection of `model` reads."""
    hidden: torch.Tensor = decoder_of(model)(input_ids=ids_BT, use_cache=False, **inputs).last_hidden_state
    return hidden


def require_runs(model: Any) -> None:
    """Raise StudentError where `model` does not run on token ids alone."""
    try:
        with probing(model):
            last_hidden(model, random_ids(model, 1, 8))
    except (StudentError, torch.OutOfMemoryError):
        raise
    except MODEL_ERRORS as error:
        raise does_not_run(model, error) from None


def does_not_run(model: Any, error: BaseException) -> StudentError:
    """Return the error for a model that raised `error` on token ids."""
    return StudentError(
        f"student: a {type(model).__name__} does not run on token ids alone ({first_line(error)}); expected a causal "
        "language model of text; choose another student"
    )


def require_finite(model: Any, values: torch.Tensor) -> None:
    """Raise StudentError where `values`, computed by `model`, are not finite."""
    if not bool(torch.isfinite(values).all()):
        raise StudentError(
            f"student: found values that are not finite in the forward pass of a {type(model).__name__}, expected "
            "numbers; look for NaN or infinity in its weights"
        )


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference relative to the largest expected value; infinity where a value is NaN."""
    share = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return share if share == share else float("inf")

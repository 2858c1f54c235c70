"""Measure how much each layer of a model does: two measures, by which layers are chosen.

Block influence (ShortGPT, Men et al. 2024, arXiv 2403.03853) is 1 - cos(h_in, h_out), the mean over tokens: h_in is the
hidden state that enters a layer, h_out the one that leaves it. One forward pass measures all layers.

The KL of removal is KL(whole model || model without the layer), in nats, the mean over tokens. Kim et al. 2024
(Shortened LLaMA, arXiv 2402.02834) remove layers by the perplexity without each of them; the KL asks the same of the
whole distribution. It takes a forward pass for each layer, without the layers before it.

Shapes: B batch, T tokens, H hidden size, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from student_train.model.parts import hidden_of, layers_of, with_hidden
from student_train.model.probe import device_of, last_hidden

Rows = Iterable[npt.NDArray[np.int64]]
"""Token ids of each row."""


def block_influence(model: Any, rows: Rows) -> tuple[float, ...]:
    """Return the block influence of each layer [L], 0 to 2.

    The mean is over all tokens of all rows, summed in float64. The model runs in evaluation mode, one row at a time,
    without the projection to the vocabulary.

    Args:
        model: transformers causal language model.
        rows: Token ids of each row.

    Raises:
        ValueError: There are no rows, or a layer does not map one hidden state to another.
    """
    return _mean_of_rows(model, rows, _influence)


def removal_kl(model: Any, rows: Rows) -> tuple[float, ...]:
    """Return KL(model || model without the layer) for each layer [L], in nats per token.

    The mean is over all tokens of all rows, summed in float64. The model runs in evaluation mode, one row at a time.

    Args:
        model: transformers causal language model.
        rows: Token ids of each row.

    Raises:
        ValueError: There are no rows, or a layer does not map one hidden state to another.
    """
    return _mean_of_rows(model, rows, _kl_without_each_layer)


def _mean_of_rows(model: Any, rows: Rows, measure: Callable[[Any, torch.Tensor], torch.Tensor]) -> tuple[float, ...]:
    """Return the mean over tokens of sums that `measure(model, ids_BT)` returns for each row (float64 [L])."""
    num_tokens = 0
    sums_L = torch.zeros(len(layers_of(model)), dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for tokens in rows:
                sums_L += measure(model, torch.from_numpy(tokens)[None].to(device_of(model)))
                num_tokens += len(tokens)
    finally:
        model.train(was_training)
    if not num_tokens:
        raise ValueError("there are no rows to measure layers on")
    return tuple((sums_L / num_tokens).tolist())


def _influence(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the sum over tokens of each layer's block influence, float64 [L]."""
    with _hidden_states(layers_of(model)) as (entered, left):
        last_hidden(model, ids_BT)
    pairs = zip(entered, map(hidden_of, left), strict=True)
    cosines = [torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1) for a, b in pairs]
    return torch.stack([(1.0 - cosine_BT).sum() for cosine_BT in cosines]).cpu()


def _kl_without_each_layer(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the sum over tokens of KL(model || model without a layer), float64 [L]."""
    layers = list(layers_of(model))
    with _hidden_states(layers) as (entered, left):
        whole_BTV = _log_probs(model, ids_BT)
    sums = []
    for i in range(len(layers)):
        with _starting_after(layers[: i + 1], entered[i], left[: i + 1]):
            cut_BTV = _log_probs(model, ids_BT)
        sums.append((whole_BTV.exp() * (whole_BTV - cut_BTV)).sum(dtype=torch.float64).cpu())
    return torch.stack(sums)


def _log_probs(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(model(input_ids=ids_BT, use_cache=False).logits.float(), dim=-1)


@contextmanager
def _hidden_states(layers: Sequence[torch.nn.Module]) -> Iterator[tuple[list[torch.Tensor], list[Any]]]:
    """Yield lists that the next forward pass fills: the hidden state that enters each layer, and what it returns.

    Raises:
        ValueError: A layer does not map one hidden state to another.
    """
    entered: list[torch.Tensor] = []
    left: list[Any] = []

    def before(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy, as a layer may add to its input in place.
        entered.append((args[0] if args else kwargs["hidden_states"]).clone())

    def after(_layer: Any, _args: Any, output: Any) -> None:
        left.append(output)
        if len(left) != len(entered) or hidden_of(output).shape != entered[-1].shape:
            raise ValueError(f"layer {len(left) - 1} does not map one hidden state to another")

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield entered, left
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _starting_after(layers: Sequence[torch.nn.Module], hidden: torch.Tensor, outputs: Sequence[Any]) -> Iterator[None]:
    """Let the first layers of a model return a hidden state without computing it.

    Args:
        layers: The layers, in order.
        hidden: What each of them returns.
        outputs: What they return otherwise: a hidden state, or a tuple that begins with it.
    """

    def constant(output: Any) -> Callable[..., Any]:
        fixed = with_hidden(output, hidden)
        return lambda *_args, **_kwargs: fixed

    try:
        for layer, output in zip(layers, outputs, strict=True):
            layer.forward = constant(output)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)

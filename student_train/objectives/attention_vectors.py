"""Take the queries, keys and values of one layer of the student during its forward pass.

Shapes: B bins, T tokens of a bin, N places of a batch (B * T), W numbers of a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from shards.format.relations import KINDS
from shards.model_files.attention import attention_maps
from student_train.errors import TrainError
from student_train.model.parts import layers_of
from student_train.model.probe import last_hidden, probing, random_ids


@contextmanager
def recorded_vectors(model: Any, layer: int | None) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a dictionary that a forward pass inside the context fills: kind to [B, T, W]; {} without a layer.

    The maps are looked up each time, as adapters and quantisation replace them.
    """
    states: dict[str, torch.Tensor] = {}
    maps = None if layer is None else attention_maps(layers_of(model)[layer])

    def keep(kind: str) -> Any:
        return lambda module, inputs, output: states.__setitem__(kind, output)

    handles = [module.register_forward_hook(keep(kind)) for kind, module in zip(KINDS, maps or (), strict=False)]
    try:
        yield states
    finally:  # recomputed activations are not recorded again
        for handle in handles:
            handle.remove()


def require_vectors(model: Any, layer: int, *, heads: int) -> int:
    """Check that a layer has vectors that can be cut into relation heads.

    Args:
        model: The student.
        layer: Number of the layer, from 0; negative ones count from the last.
        heads: Number of relation heads.

    Returns:
        The number of the layer, from 0.

    Raises:
        TrainError: There is no such layer, it computes no queries, keys and values by one map each, or their widths are
            no multiples of `heads`.
    """
    count = len(layers_of(model))
    if not -count <= layer < count:
        raise TrainError(
            f"relations-layer is {layer}; the student has {count} layers, expected {-count} to {count - 1}"
        )
    layer %= count
    if attention_maps(layers_of(model)[layer]) is None:
        raise TrainError(
            f"relations-weight: found no q_proj, k_proj and v_proj in layer {layer} of a {type(model).__name__}, "
            "expected one map each to queries, keys and values; leave the option out, or choose another --student"
        )
    with probing(model), recorded_vectors(model, layer) as states:
        last_hidden(model, random_ids(model, 1, 4))
    for kind, found in states.items():
        if found.shape[-1] % heads:
            raise TrainError(
                f"relations-weight: the student's {kind} have {found.shape[-1]} numbers, expected a multiple of the "
                f"{heads} relation heads of the shards; dump with other --relations-heads, or choose another --student"
            )
    return layer

"""Train a student that will be quantised. By torchao.

While training, the weights of linear layers are rounded as the quantised copy rounds them, and gradients pass through
the rounding unchanged (quantisation-aware training, Jacob et al. 2018, section 3). The weights themselves stay float32.
The output projection and the embeddings are not quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from shards.errors import first_line
from student_train.errors import TrainError

GROUP_SIZE = 32
"""Weights of a row that share a scale, as int4. As int8 a whole row shares one."""


def add_rounding(model: Any, kind: str) -> None:
    """Let the linear layers of a model round their weights while `rounding` is on, in place. They are off at first.

    Args:
        model: transformers causal language model.
        kind: One of `choices.QUANTIZATIONS`.

    Raises:
        TrainError: torchao is not installed, or the model has no layers that can be quantised so.
    """
    settings = torchao_settings(kind)
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    head = model.get_output_embeddings()
    layers = {name: layer for name, layer in model.named_modules() if _is_quantised(layer, head)}
    uneven = [name for name, layer in layers.items() if kind == "int4" and layer.in_features % GROUP_SIZE]
    if uneven or not layers:
        found = f"{uneven[0]} with {layers[uneven[0]].in_features} inputs" if uneven else "no linear layer"
        raise TrainError(
            f"quantize {kind}: found {found} in a {type(model).__name__}, expected linear layers with a multiple of "
            f"{GROUP_SIZE} inputs; use --quantize int8, or leave --quantize out"
        )
    quantize_(model, QATConfig(settings, step="prepare"), filter_fn=lambda layer, _: _is_quantised(layer, head))
    _switch(model, on=False)


@contextmanager
def rounding(model: Any, kind: str) -> Iterator[None]:
    """Round the weights of a model in the block; nothing happens where `kind` is ""."""
    if not kind:
        yield
        return
    _switch(model, on=True)
    try:
        yield
    finally:
        _switch(model, on=False)


def torchao_settings(kind: str) -> Any:
    """Return torchao's settings of a type: symmetric, without zero points, one scale per row or per group.

    Raises:
        TrainError: torchao is not installed.
    """
    import torch

    try:
        from torchao.quantization import IntxWeightOnlyConfig
        from torchao.quantization.granularity import PerAxis, PerGroup
    except ImportError as error:
        raise TrainError(
            f"quantize {kind}: found no torchao ({first_line(error)}), expected it for quantised weights; pip install "
            "'teacherless[quantize]', or leave --quantize out"
        ) from None
    if kind == "int8":
        return IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP_SIZE))


def _is_quantised(layer: nn.Module, head: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer is not head


def _switch(model: Any, *, on: bool) -> None:
    from torchao.quantization.qat.linear import enable_linear_fake_quant

    model.apply(lambda layer: enable_linear_fake_quant(layer, on))

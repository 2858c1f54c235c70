"""Find the decoder and the layers of a transformers model, whatever its class calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from student_train.errors import StudentError


def decoder_of(model: Any) -> Any:
    """Return the text part that ends in hidden states, without the output projection.

    Raises:
        StudentError: No part has a list of layers.
    """
    candidates = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    # Some classes return themselves (Llama 4) or their output projection (ModernBERT).
    for part in candidates:
        if part is None or part is model:
            continue
        if any(isinstance(module, nn.ModuleList) for module in part.modules()):
            return part
    raise StudentError(
        f"student: found a {type(model).__name__} without a list of layers, expected a decoder of several layers; "
        "choose another student"
    )


def layers_of(model: Any) -> nn.ModuleList:
    """Return the layers of the text part.

    Raises:
        StudentError: No list has the length that the configuration names.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in decoder_of(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise StudentError(
        f"student: found no list of {count} layers in a {type(model).__name__}, expected num_hidden_layers to "
        "count the decoder's layers; choose a decoder-only student, or leave --student-layers and --compile out"
    )


def hidden_of(output: Any) -> torch.Tensor:
    """Return the hidden state of a layer's output: a tensor, or the first part of a tuple."""
    hidden: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return hidden


def with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """Return a layer's output with another hidden state."""
    return type(output)([hidden, *output[1:]]) if isinstance(output, tuple | list) else hidden

"""Find the decoder and the layers of a transformers model, whatever its class calls them."""

from __future__ import annotations

from typing import Any

from torch import nn

from student_train.errors import StudentError


def decoder_of(model: Any) -> Any:
    """Return the text part that ends in hidden states, without the output projection."""
    found = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    # Some classes return themselves (Llama 4) or their output projection (ModernBERT).
    parts = (part for part in found if part is not model and any(isinstance(m, nn.ModuleList) for m in part.modules()))
    if (part := next(parts, None)) is None:
        raise StudentError(
            f"student: found a {type(model).__name__} without a list of layers, expected a decoder of several layers; "
            "choose another student"
        )
    return part


def layers_of(model: Any) -> nn.ModuleList:
    """Return the layers of the text part. Raises: StudentError where no list has the configuration's length."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (m for m in decoder_of(model).modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    if (layers := next(lists, None)) is None:
        raise StudentError(
            f"student: found no list of {count} layers in a {type(model).__name__}, expected num_hidden_layers to "
            "count the decoder's layers; choose a decoder-only student, or leave --student-layers and --compile out"
        )
    return layers

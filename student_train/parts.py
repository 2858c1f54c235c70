"""Find the decoder and the layers of a transformers model, whatever its class calls them."""

from __future__ import annotations

from typing import Any

from torch import nn


def decoder_of(model: Any) -> Any:
    """Return the text part that ends in hidden states, without the output projection."""
    found = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    # Some classes return themselves (Llama 4) or their output projection (ModernBERT).
    return next(
        part for part in found if part is not model and any(isinstance(m, nn.ModuleList) for m in part.modules())
    )


def layers_of(model: Any) -> nn.ModuleList:
    """Return the layers of the text part."""
    count = model.config.get_text_config().num_hidden_layers
    return next(m for m in decoder_of(model).modules() if isinstance(m, nn.ModuleList) and len(m) == count)

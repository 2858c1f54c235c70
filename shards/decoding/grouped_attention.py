"""Attention of decoding steps that reads each key and value once for all query heads of its group.

With a mask, transformers repeats keys and values for each query head before it calls SDPA, since SDPA with
`enable_gqa` falls back to a slow kernel on CUDA. A decoding step of a large batch then mostly copies its cache, on a
CPU too. A step has one query position, so the query heads of a group can stand in as positions that share keys, values
and mask: the same sums, without copies.

Shape suffixes: B rows, H query heads, K key heads, G query heads of a group (H = K G), T key positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

NAME = "sdpa_grouped_decode"
"""Name of the implementation, for `attn_implementation`."""


def register() -> str:
    """Add the implementation to transformers and return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, grouped_decode_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def grouped_decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention output; steps with more than one query position take transformers' own SDPA.

    Args:
        module: The attention layer.
        query: (B, H, 1, D).
        key: (B, K, T, D).
        value: (B, K, T, D).
        attention_mask: (B, 1, 1, T), Boolean or additive; None without padding.
        settings: Other arguments of transformers' attention functions; `scaling` is used.

    Returns:
        The output, (B, 1, H, D), and None in place of attention weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, positions, size = query.shape
    key_heads = key.shape[1]
    plain = settings.get("position_bias") is None and settings.get("s_aux") is None
    if positions != 1 or heads == key_heads or not plain:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return output, None
    grouped_BKGD = query.view(rows, key_heads, heads // key_heads, size)
    output_BKGD = functional.scaled_dot_product_attention(
        grouped_BKGD, key, value, attn_mask=attention_mask, scale=settings.get("scaling")
    )
    return output_BKGD.reshape(rows, 1, heads, output_BKGD.shape[-1]), None

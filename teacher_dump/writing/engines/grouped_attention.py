"""Attention of decoding steps without copies of keys and values for each query head of a group.

transformers repeats keys and values before it calls SDPA with a mask. A decoding step has one query position, so the
query heads of a group can stand in its place as positions that share keys, values and mask.

Shape suffixes: B rows, H query heads, K key heads, G query heads of a group (H = K G), T key positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_NAME = "teacher_dump_grouped_decode"


def register() -> str:
    """Add the implementation to transformers, and return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    return _NAME


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention output [B, T, H, D]; a step of several positions takes transformers' own SDPA.

    Args:
        module: The attention layer.
        query: [B, H, 1, D].
        key: [B, K, T, D].
        value: [B, K, T, D].
        attention_mask: [B, 1, 1, T], or None.
        settings: Other arguments of transformers' attention functions.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, positions, size = query.shape
    key_heads = key.shape[1]
    has_extra = settings.get("position_bias") is not None or settings.get("s_aux") is not None
    if positions != 1 or heads == key_heads or has_extra:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)[0], None
    query_BKGD = query.view(rows, key_heads, heads // key_heads, size)
    output_BKGD = functional.scaled_dot_product_attention(
        query_BKGD, key, value, attn_mask=attention_mask, scale=settings.get("scaling")
    )
    return output_BKGD.reshape(rows, 1, heads, output_BKGD.shape[-1]), None

"""The soft cap of attention logits, which Gemma 2 has and transformers' SDPA ignores."""

from __future__ import annotations

from typing import Any


def is_capped(config: Any) -> bool:
    """Return whether a transformers config caps attention logits, so that the model needs eager attention."""
    return bool(getattr(config.get_text_config(), "attn_logit_softcapping", None))

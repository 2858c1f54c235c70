"""Rotary factors that depend on the length of a row: LongRoPE's two lists, and dynamic NTK scaling.

transformers selects both by the longest row of a batch. Dynamic scaling also keeps the longest row of earlier forward
passes. A record must depend on its own row only, so that such rows cannot share a batch, and each pass begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

LONGROPE = ("longrope", "su")
"""Names of LongRoPE in configs."""


def length_changes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield each type of RoPE whose factors depend on the length of a row, and the most tokens of the first factors.

    Args:
        config: Content of a config.json.
    """
    text_config = config.get("text_config") or config
    rope = text_config.get("rope_parameters") or text_config.get("rope_scaling") or {}
    longest = text_config.get("max_position_embeddings")
    original = "original_max_position_embeddings"
    for settings in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = str(settings.get("rope_type") or settings.get("type"))
        if kind in LONGROPE and (change := settings.get(original) or text_config.get(original) or longest):
            yield kind, change
        elif "dynamic" in kind and longest:
            yield kind, longest


def restart_dynamic_rope(model: Any) -> None:
    """Make each forward pass compute dynamic RoPE from its own length alone.

    Args:
        model: A transformers model.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_prefix = {f"{layer}_": kind for layer, kind in kinds.items()} if isinstance(kinds, dict) else {"": kinds}
        prefixes = [
            prefix
            for prefix, kind in by_prefix.items()
            if isinstance(kind, str) and "dynamic" in kind and hasattr(module, f"{prefix}original_inv_freq")
        ]
        if prefixes:
            module.register_forward_pre_hook(partial(_restart, prefixes=prefixes))


def _restart(module: Any, _: Any, *, prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        device = getattr(module, f"{prefix}inv_freq").device
        factors = getattr(module, f"{prefix}original_inv_freq").to(device)
        module.register_buffer(f"{prefix}inv_freq", factors, persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

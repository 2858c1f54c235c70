"""How does vLLM take its top-p from `nucleus`? As a logits processor, which its workers load by name."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor

from evalkit.generation.top_p import keep_nucleus


class Nucleus(LogitsProcessor):  # type: ignore[misc]  # vllm is not typed
    """Keeps the nucleus of every row; top_p is one for the engine: `additional_config["evalkit_top_p"]`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._top_p = float(vllm_config.additional_config["evalkit_top_p"])

    def is_argmax_invariant(self) -> bool:
        """Tell vLLM to apply it after the temperature, and not to greedy rows."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Nothing is kept per row."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return keep_nucleus(logits, self._top_p)

"""Top-p masking as a logits processor, which vLLM's workers load by name."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor

from evalkit.generation.top_p import mask_outside_top_p


class TopPLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # vllm is not typed
    """Masks every row with one top_p for the whole engine, `additional_config["evalkit_top_p"]`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._top_p = float(vllm_config.additional_config["evalkit_top_p"])

    def is_argmax_invariant(self) -> bool:
        """Tell vLLM to apply the processor after the temperature, and not to greedy rows."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Ignore changes of the batch: no state is kept per row."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the masked logits: (batch, vocab)."""
        return mask_outside_top_p(logits, self._top_p)

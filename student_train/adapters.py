"""How does a student learn with few weights? Low-rank adapters beside frozen matrices, merged before export.

Hu et al. 2022 (LoRA), by peft: each linear layer but the output projection gets a product of two thin matrices. Only
those train, and only those are in checkpoints; the exported folder is an ordinary model again.
"""

from __future__ import annotations

from typing import Any

from student_train.errors import TrainError


def add_adapters(model: Any, *, rank: int, seed: int) -> Any:
    """Freeze `model`, put adapters into it, in place, and return what can merge them later.

    Raises: TrainError where peft is not installed.
    """
    import torch

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise TrainError(
            "lora-rank: found no peft, expected it for adapters; pip install peft, or use --lora-rank 0"
        ) from None
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, settings)


def merged(adapted: Any) -> Any:
    """Return the ordinary model, its adapters added into its matrices. The adapters are gone afterwards."""
    return adapted.merge_and_unload()

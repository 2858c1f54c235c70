"""Load a causal language model with transformers, or refuse by name what is not one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from teacher_dump.errors import DumpError

_SHOWN_KEYS = 3


def load(folder: Path, *, dtype: str) -> Any:
    """Return the model in evaluation mode, on the CPU, without a cache of keys and values.

    A multimodal model is loaded whole and used with text alone.

    Args:
        folder: Transformers folder.
        dtype: Name of a torch type, as "bfloat16".

    Raises:
        DumpError: The folder holds no causal language model, lacks weights of it, or cannot be loaded.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        if getattr(config, "is_encoder_decoder", False):
            raise DumpError(
                f"{folder}: found an encoder-decoder ({config.model_type}), expected a causal (decoder-only) language "
                "model; use another teacher"
            )
        # The fast kernels of mixtures of experts have no float64.
        experts = {"experts_implementation": "eager"} if dtype == "float64" else {}
        model, info = _loader(config).from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, **experts
        )
    except DumpError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError) as error:
        words = " ".join(str(error).split())[:300]
        raise DumpError(
            f"{folder}: transformers cannot load it as a causal language model ({type(error).__name__}: {words}); "
            "check the folder, or use another teacher"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise DumpError(
            f"{folder}: {len(missing)} weights of a {type(model).__name__} are not in its files "
            f"({', '.join(missing[:_SHOWN_KEYS])}), expected all; use the folder of a causal language model"
        )
    for part in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        part.use_cache = False
    return model.eval()


def _loader(config: Any) -> Any:
    """Return the class that loads a config: a causal LM, or a multimodal model that writes text."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    multimodal = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in multimodal:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def arguments(model: Any) -> dict[str, Any]:
    """Return what goes to a model's forward besides the token ids: no cache, where it takes that."""
    takes = inspect.signature(model.forward).parameters
    return {"use_cache": False} if "use_cache" in takes else {}

"""Load a causal language model with transformers, or raise an error that names why it is not one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from shards.decoding.soft_cap import is_capped
from teacher_dump.errors import DumpError
from teacher_dump.model.declared_model import auto_class
from teacher_dump.model.model_folder import require_decoder_only
from teacher_dump.model.rope import restart_dynamic_rope

_SHOWN_KEYS = 3


def load(folder: Path, *, dtype: str) -> Any:
    """Load a model in evaluation mode, on the CPU, without a KV cache.

    A multimodal model is loaded whole and used with text alone.

    Args:
        folder: Transformers folder.
        dtype: Name of a torch type, such as "bfloat16".

    Raises:
        DumpError: The folder holds no causal language model, lacks weights of it, or cannot be loaded.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        require_decoder_only(config, folder)
        model, info = auto_class(config).from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, **_implementations(config, dtype)
        )
    except DumpError:
        raise
    except Exception as error:  # the files of a checkpoint can make transformers raise errors of any type
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
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    restart_dynamic_rope(model)
    return model.eval()


def _implementations(config: Any, dtype: str) -> dict[str, str]:
    """Return the implementations that the model must run with, where transformers' default gives other logits.

    Args:
        config: Its transformers config.
        dtype: Name of a torch type.
    """
    chosen = {}
    if dtype == "float64":  # the fused kernels of mixtures of experts do not support it
        chosen["experts_implementation"] = "eager"
    if is_capped(config):
        chosen["attn_implementation"] = "eager"
    return chosen


def forward_options(model: Any) -> dict[str, Any]:
    """Return the arguments of a model's forward besides the token ids: no KV cache, if it accepts the option."""
    parameters = inspect.signature(model.forward).parameters
    return {"use_cache": False} if "use_cache" in parameters else {}

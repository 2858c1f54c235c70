"""Load a student's model from its folder, or say in one line why it cannot be trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.errors import ShardError, first_line
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.weights import require_sound, weight_files
from student_train.errors import StudentError

_LOADING = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError)
"""What transformers raises on weights or settings of strangers."""


def load_model(name: str, folder: Path, *, seed: int) -> Any:
    """Return the model in a folder, float32; one that starts fresh, from `seed`, where the folder has no weights.

    No code of the folder runs.

    Raises:
        StudentError: The folder holds no model that can be trained: weights that are cut, incomplete, NaN or quantised,
            or a kind of model that transformers does not know.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = _load_config(name, folder)
    _require_whole(name, folder)
    # Attention is SDPA where the model has it and transformers' own elsewhere: the default.
    try:
        if not weight_files(folder):
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model, about = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except (*_LOADING, SafetensorError) as error:
        raise _does_not_load(name, folder, error) from None
    missing = sorted(about["missing_keys"])
    if missing:
        raise StudentError(
            f"student {name}: found no {missing[0]} and {len(missing) - 1} more of the model's tensors in {folder}, "
            "expected whole weights of a causal language model: save it with save_pretrained again"
        )
    return model


def require_ids(name: str, folder: Path, *, vocab_size: int) -> None:
    """Raise StudentError where a student's own tokenizer gives ids to text that its model has no row for."""
    if beyond := TokenizerRules.load(folder).pieces_from(vocab_size):
        number, piece = beyond[0]
        raise StudentError(
            f"student {name}: its tokenizer has {len(beyond):,} ids beyond the model's {vocab_size:,}, the first "
            f"{number} {piece!r}; expected the tokenizer of this model"
        )


def _load_config(name: str, folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        raw = dict(json.loads((folder / "config.json").read_bytes()))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a config.json of a stranger makes its class raise
        raise _does_not_load(name, folder, error) from None
    quantised = raw.get("quantization_config")
    if isinstance(quantised, dict):
        method = quantised.get("quant_method", "an unnamed method")
        raise StudentError(
            f"student {name}: found weights quantised by {method} in {folder}, expected float weights, which can be "
            "trained; save a dequantised copy, or name another --student"
        )
    return config


def _require_whole(name: str, folder: Path) -> None:
    try:
        require_sound(folder)
    except ShardError as error:
        raise StudentError(f"student {name}: {error}") from None


def _does_not_load(name: str, folder: Path, error: Exception) -> StudentError:
    return StudentError(
        f"student {name}: {folder} does not load ({first_line(error)}); expected a transformers folder of a causal "
        "language model that needs no code of its own"
    )

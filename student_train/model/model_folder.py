"""Load a model and its tokenizer's rules from a folder; a folder that cannot be trained is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.errors import ShardError, first_line
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.weights import require_sound, weight_files
from student_train.errors import StudentError


def load_model(
    name: str,
    folder: Path,
    *,
    seed: int,
    log: Callable[[str], None] = lambda line: None,
    may_be_quantised: bool = False,
) -> Any:
    """Return the model in a folder, float32. No code of the folder runs.

    Args:
        name: Name of the student, for messages.
        folder: A transformers folder. Without weights, the model starts fresh.
        seed: Seed of a model that starts fresh.
        log: Called with one line where the weights hold tensors that the model does not have.
        may_be_quantised: Whether quantised weights are accepted, which run and cannot be trained.

    Raises:
        StudentError: The folder holds no model that can be used: weights that are truncated, incomplete, NaN or
            quantised, or a kind of model that transformers does not support.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = _load_config(name, folder, may_be_quantised=may_be_quantised)
    try:
        require_sound(folder)
    except ShardError as error:
        raise StudentError(f"student {name}: {error}") from None
    # The default attention is SDPA where the model supports it, else transformers' own.
    try:
        if not weight_files(folder):
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model, about = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many types on unknown settings and weights
        if method := _quantisation(config):
            raise StudentError(
                f"student {name}: {folder} does not load ({first_line(error)}); expected weights quantised by {method} "
                f"that this machine can run; install the package that transformers needs for {method}, or name a "
                "dequantised copy"
            ) from None
        raise _does_not_load(name, folder, error) from None
    missing, surplus = sorted(about["missing_keys"]), sorted(about["unexpected_keys"])
    if missing:
        raise StudentError(
            f"student {name}: found no {missing[0]} and {len(missing) - 1} more of the model's tensors in {folder}, "
            "expected whole weights of a causal language model: save it with save_pretrained again"
        )
    if surplus:
        log(
            f"student {name}: {folder} has {len(surplus):,} tensors that a {type(model).__name__} does not have, the "
            f"first {surplus[0]}; they are left out of the student"
        )
    return model


def load_rules(name: str, folder: Path) -> TokenizerRules:
    """Return the rules of the tokenizer in a folder. Raises StudentError, naming the student, where there are none."""
    try:
        return TokenizerRules.load(folder)
    except ShardError as error:
        raise StudentError(f"student {name}: {error}") from None


def require_ids(name: str, rules: TokenizerRules, *, vocab_size: int) -> None:
    """Raise StudentError where a student's tokenizer gives text ids of `vocab_size` and above."""
    if beyond := rules.pieces_from(vocab_size):
        number, piece = beyond[0]
        raise StudentError(
            f"student {name}: its tokenizer has {len(beyond):,} ids beyond the model's {vocab_size:,}, the first "
            f"{number} {piece!r}; expected the tokenizer of this model"
        )


def _load_config(name: str, folder: Path, *, may_be_quantised: bool) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many types on unknown settings
        raise _does_not_load(name, folder, error) from None
    if not may_be_quantised and (method := _quantisation(config)):
        raise StudentError(
            f"student {name}: found weights quantised by {method} in {folder}, expected float weights, which can be "
            "trained; save a dequantised copy, or name another --student"
        )
    return config


def _quantisation(config: Any) -> str:
    """Return the method by which the weights of a model are quantised; "" for float weights."""
    settings = getattr(config, "quantization_config", None)
    return str(settings.get("quant_method", "an unnamed method")) if isinstance(settings, dict) else ""


def _does_not_load(name: str, folder: Path, error: Exception) -> StudentError:
    return StudentError(
        f"student {name}: {folder} does not load ({first_line(error)}); expected a transformers folder of a causal "
        "language model that needs no code of its own"
    )

"""Checks of a model folder, before anything is written.

They read files and use transformers' own classes. No weight is loaded, and no code of the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.errors import DumpError

_PROBE_TEXT = (
    "def tokenise(words):\n    return [word.lower() for word in words if internationalisation(word)]  # naïve\n"
)
_PROBE_REPEATS = 16


def load_config(folder: Path) -> dict[str, Any]:
    """Return config.json, with the keys of a text model inside it at the top level.

    Raises:
        DumpError: The file is missing, or not the config of a language model.
    """
    try:
        config: dict[str, Any] = dict(json.loads((folder / "config.json").read_bytes()))
        flat = config if "vocab_size" in config else {**config, **config["text_config"]}
        flat["vocab_size"] = int(flat["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DumpError(
            f"{folder}: no readable config.json ({error!r}); expected a transformers model folder"
        ) from None
    return flat


def require_known_architecture(folder: Path) -> Any:
    """Return a folder's transformers config, loaded without code of the folder, after a check that it is a decoder's.

    Raises:
        DumpError: It is not.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # config classes raise errors of any type on unexpected values
        raise DumpError(
            f"{folder}: its config.json does not load ({first_line(error)}); expected a model that transformers knows "
            "without code of the folder's own"
        ) from None
    require_decoder_only(config, folder)
    return config


def require_decoder_only(config: Any, folder: Path) -> None:
    """Check that a transformers config is not an encoder-decoder's.

    Raises:
        DumpError: It is.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise DumpError(
            f"{folder}: found an encoder-decoder ({config.model_type}), expected a causal (decoder-only) language "
            "model; use another teacher"
        )


def require_quantiser(folder: Path) -> None:
    """Check that transformers can load a folder's quantised weights on this machine.

    vLLM has its own kernels and reports itself what is missing.

    Raises:
        DumpError: A library or device that the quantisation method needs is missing.
    """
    settings = json.loads((folder / "config.json").read_bytes()).get("quantization_config")
    if settings is None:
        return
    from transformers.quantizers import AutoHfQuantizer

    try:
        AutoHfQuantizer.from_config(settings, pre_quantized=True).validate_environment(device_map=None)
    except Exception as error:  # each quantisation method raises errors of its own types
        raise DumpError(
            f"{folder}: its weights are quantised, and transformers cannot load them here ({first_line(error)}); "
            "install what it names, use --engine vllm, or give --model a copy that is not quantised"
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer.

    Raises:
        DumpError: It does not load without code of the folder's own, or its ids are not a function of the text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise DumpError(
            f"{folder}: its tokenizer does not load ({first_line(error)}); expected one that transformers knows "
            "without code of the folder's own"
        ) from None
    text = _PROBE_TEXT * 4
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if any(tokenizer(text, add_special_tokens=False)["input_ids"] != ids for _ in range(_PROBE_REPEATS)):
        raise DumpError(
            f"{folder}: its tokenizer gives other ids for the same text each time (it samples); expected a function of "
            "the text: switch sampling off in its files"
        )
    return tokenizer


def require_ids_in_embedding(rules: TokenizerRules, vocab_size: int) -> None:
    """Check that the ids of the tokenizer are rows of the model's embedding.

    Special tokens beyond it are accepted: a document that contains one is dropped.

    Raises:
        DumpError: An ordinary token has no row.
    """
    if beyond := rules.pieces_from(vocab_size):
        number, piece = beyond[0]
        raise DumpError(
            f"{rules.folder}: its tokenizer has {len(beyond):,} ids beyond the {vocab_size:,} of config.json, the "
            f"first {number} {piece!r}; expected the tokenizer of this model"
        )

"""Check that a model folder can be used as a teacher, before anything is written.

Everything is read from files or from transformers' own classes; no weight is loaded, and no code of the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from shards.errors import first_line
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.errors import DumpError

_PROBE = "def tokenise(words):\n    return [word.lower() for word in words if internationalisation(word)]  # naïve\n"
_PROBE_TIMES = 16


def load_config(folder: Path) -> dict[str, Any]:
    """Return config.json, with the text model's keys on top. Raises DumpError where it is no usable one."""
    try:
        config: dict[str, Any] = dict(json.loads((folder / "config.json").read_bytes()))
        flat = config if "vocab_size" in config else {**config, **config["text_config"]}
        flat["vocab_size"] = int(flat["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DumpError(
            f"{folder}: no readable config.json ({error!r}); expected a transformers model folder"
        ) from None
    return flat


def require_known_architecture(folder: Path) -> None:
    """Raise DumpError where transformers does not know the folder's kind of model, or would run code of the folder."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a config.json of a stranger makes its class raise
        raise DumpError(
            f"{folder}: its config.json does not load ({first_line(error)}); expected a model that transformers knows "
            "without code of the folder's own"
        ) from None


def require_quantiser(folder: Path) -> None:
    """Raise DumpError where transformers cannot load a folder's quantised weights on this machine.

    vLLM has kernels of its own and says itself what it lacks.
    """
    settings = json.loads((folder / "config.json").read_bytes()).get("quantization_config")
    if settings is None:
        return
    from transformers.quantizers import AutoHfQuantizer

    try:
        AutoHfQuantizer.from_config(settings, pre_quantized=True).validate_environment(device_map=None)
    except Exception as error:  # each method of quantisation raises its own
        raise DumpError(
            f"{folder}: its weights are quantised, and transformers cannot load them here ({first_line(error)}); "
            "install what it names, use --engine vllm, or give --model a copy that is not quantised"
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's tokenizer.

    Raises:
        DumpError: Where it does not load without code of the folder's own, or is no function of the text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise DumpError(
            f"{folder}: its tokenizer does not load ({first_line(error)}); expected one that transformers knows "
            "without code of the folder's own"
        ) from None
    text = _PROBE * 4
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if any(tokenizer(text, add_special_tokens=False)["input_ids"] != ids for _ in range(_PROBE_TIMES)):
        raise DumpError(
            f"{folder}: its tokenizer gives other ids for the same text each time (it samples); expected a function of "
            "the text: switch sampling off in its files"
        )
    return tokenizer


def require_ids_in_embedding(rules: TokenizerRules, vocab_size: int) -> None:
    """Raise DumpError where the tokenizer gives ids to text that the model has no row for.

    Special tokens above it are let through: a document that holds one is dropped.
    """
    if beyond := rules.pieces_from(vocab_size):
        number, piece = beyond[0]
        raise DumpError(
            f"{rules.folder}: its tokenizer has {len(beyond):,} ids beyond the {vocab_size:,} of config.json, the "
            f"first {number} {piece!r}; expected the tokenizer of this model"
        )


def without_paths(content: bytes) -> bytes:
    """Return a tokenizer's file without the paths of the machine that saved it; any other content as it is."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(config, dict):
        return content
    kept = {key: value for key, value in config.items() if not _is_path(key, value)}
    return content if kept == config else json.dumps(kept, indent=2, ensure_ascii=False).encode() + b"\n"


def _is_path(key: str, value: Any) -> bool:
    names_a_place = key in ("name_or_path", "_name_or_path") or key.endswith(("_file", "_dir", "_path"))
    return names_a_place and isinstance(value, str) and (value.startswith("~") or PurePath(value).is_absolute())

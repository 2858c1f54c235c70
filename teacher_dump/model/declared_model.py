"""Check a folder's config.json against its weights, before anything is written and without loading a weight.

transformers builds the model on the meta device and assigns tensors without storage, of the names and shapes in the
files' headers. That applies the same renaming, merging of experts and tying as a real load, and takes a second or two
for any size.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.model_files.weights import read_header
from teacher_dump.errors import DumpError

_SHOWN = 3
_COMMON_SETTINGS = ("is_causal", "use_bidirectional_attention")
"""Settings of encoders that transformers reads for several classes, outside of their modules."""
_NUMBER = re.compile(r"\.(\d+)\.")


def require_declared_model(folder: Path, config: Any) -> None:
    """Check that a config is a causal language model's, and that the safetensors files hold its weights.

    The weights of a quantised model are not compared: their names depend on the method. Neither are those of other
    files than safetensors, or without accelerate, which the extra `dump` installs. Such a model is only built.

    Args:
        folder: Transformers folder.
        config: Its transformers config.

    Raises:
        DumpError: transformers has no causal language model for the config, cannot build it, or a weight is missing,
            of another shape, or of a layer or an adapter that the model does not have.
    """
    model_class = _model_class(folder, config)
    _require_known_rope(folder, config)
    try:
        model, info = _load_on_meta(folder, config, model_class)
    except Exception as error:  # model classes raise errors of any type on unexpected settings
        words = f"{type(error).__name__}: {first_line(error)}"
        raise DumpError(
            f"{folder}: its config.json does not give a {model_class.__name__} ({words}); expected the files of one "
            "model: fetch or save it again"
        ) from None
    require_causal(folder, model)
    _require_weights(folder, model, info)


def auto_class(config: Any) -> Any:
    """Return the transformers class that loads a config: a causal LM, or a multimodal model that generates text."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    multimodal = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in multimodal:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def require_causal(folder: Path, model: Any) -> None:
    """Check the settings by which classes of transformers become encoders. The engine measures causality at its load.

    Raises:
        DumpError: A setting makes the model read later tokens.
    """
    config = model.config.get_text_config()
    source = inspect.getsource(sys.modules[type(model).__module__])
    encoder_settings: dict[str, Any] = {
        "is_decoder": False,
        "causal": False,
        "is_causal": False,
        "use_bidirectional_attention": True,
        "attn_type": "bi",
    }
    for name, value in encoder_settings.items():
        # GPT-NeoX's config has a setting is_decoder that its class does not read; its documentation sets it.
        reads = name in _COMMON_SETTINGS or re.search(rf"config\.{name}\b(?! = )", source)
        found = getattr(config, name, None)
        if reads and found is not None and found == value:
            raise DumpError(
                f"{folder}: found an encoder ({config.model_type} with {name} {value}), whose tokens see those after "
                "them; expected a causal (decoder-only) language model; use another teacher"
            )


def _model_class(folder: Path, config: Any) -> Any:
    from transformers.models.auto.auto_factory import _get_model_class

    try:
        return _get_model_class(config, auto_class(config)._model_mapping)
    except KeyError:
        raise DumpError(
            f"{folder}: transformers has no causal language model of type {config.model_type}; expected a causal "
            "(decoder-only) one; use another teacher"
        ) from None


def _require_known_rope(folder: Path, config: Any) -> None:
    """Refuse a RoPE type by name; models would fail with a KeyError, or ignore it."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    known = {"default", "axial", "xdrope", *ROPE_INIT_FUNCTIONS}
    text_config = config.get_text_config()
    settings = getattr(text_config, "rope_parameters", None) or getattr(text_config, "rope_scaling", None) or {}
    parts = [settings, *settings.values()] if isinstance(settings, dict) else []
    for part in (part for part in parts if isinstance(part, dict)):
        kind = str(part.get("rope_type") or part.get("type") or "default")
        if kind not in known:
            raise DumpError(
                f"{folder}: its config.json names the RoPE type {kind!r}, expected one of transformers' "
                f"({', '.join(sorted(known))}); use another teacher"
            )


def _load_on_meta(folder: Path, config: Any, model_class: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model without storage, and what transformers finds missing, misshapen or unexpected."""
    import torch

    files = sorted(folder.glob("*.safetensors"))
    with _silent():
        has_names = files and getattr(config, "quantization_config", None) is None
        if not has_names or importlib.util.find_spec("accelerate") is None:
            with torch.device("meta"):
                return model_class(config), {}
        names = {
            tensor.name: torch.empty(tensor.shape, dtype=torch.bfloat16, device="meta")
            for file in files
            for tensor in read_header(file)
        }
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=names,
            dtype=torch.bfloat16,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `_require_weights` refuses them
            device_map="meta",
        )
    return model, info


def _require_weights(folder: Path, model: Any, info: dict[str, Any]) -> None:
    kind = type(model).__name__
    if mismatched := sorted(info.get("mismatched_keys", ())):
        name, shape, expected = mismatched[0]
        raise DumpError(
            f"{folder}: {name} has the shape {list(shape)}, the {kind} of config.json has {list(expected)}; expected "
            "config.json and weights of one model"
        )
    if missing := sorted(info.get("missing_keys", ())):
        raise DumpError(
            f"{folder}: {len(missing)} weights of a {kind} are not in its files ({_first(missing)}), expected all; "
            "fetch or save the model again"
        )
    if errors := info.get("conversion_errors") or info.get("error_msgs"):
        words = first_line(ValueError(str(next(iter(errors.values() if isinstance(errors, dict) else errors)))))
        raise DumpError(f"{folder}: its weights are not those of a {kind} ({words}); expected the files of one model")
    _refuse_surplus(folder, kind, info.get("unexpected_keys", ()), set(model.state_dict()))


def _refuse_surplus(folder: Path, kind: str, unexpected: Collection[str], names: Collection[str]) -> None:
    """Refuse tensors of more layers than the model has, and of an adapter. Others, as of a value head, are left out."""
    if adapters := sorted(name for name in unexpected if "lora_" in name or ".base_layer." in name):
        raise DumpError(
            f"{folder}: found {len(adapters)} tensors of an adapter ({_first(adapters)}), expected whole weights; "
            "merge the adapter into the model, and save that"
        )
    layers = {_NUMBER.sub(".*.", name) for name in names if _NUMBER.search(name)}
    if surplus := sorted(name for name in unexpected if _NUMBER.sub(".*.", name) in layers):
        raise DumpError(
            f"{folder}: found {len(surplus)} tensors of layers or experts beyond those of config.json "
            f"({_first(surplus)}), expected as many in both; set config.json to what was trained, as num_hidden_layers"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress transformers' own reports: the errors here replace them."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)

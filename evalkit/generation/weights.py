"""Checks of a checkpoint's weights against its configuration, before generation.

transformers would fill a missing tensor with random numbers and ignore a surplus one; NaN would still give an answer.
In each case the score would be that of another model, so each is an error that names the tensor. Tensors that the model
class itself declares optional (tied embeddings, old buffers, layers for multi-token prediction) are accepted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import Checkpoint, weight_files
from evalkit.generation.decoding import load_full_config, loading_error

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")


def check_weights(checkpoint: Checkpoint, *, engine: str) -> list[str]:
    """Check that the weights are those of the configuration.

    Names and shapes come from the files' headers. The values are read once, to find NaN and infinity.

    Returns:
        Warnings about tensors that the model does not use.

    Raises:
        EvalError: A tensor is missing, has another shape, belongs to a layer that the configuration does not have,
            or holds NaN or infinity; or the checkpoint cannot be loaded at all.
    """
    info, config = _loading_info(checkpoint, engine)
    unused = sorted(info.get("unexpected_keys", ()))
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    _check_names(checkpoint, info, num_layers)
    for path in _files(checkpoint):
        for name, is_finite in _finite(path):
            if not is_finite and name not in unused:
                raise EvalError(
                    f"{checkpoint.source}: {name} in {path.name} holds NaN or infinity; the training diverged or the "
                    "file is damaged, take an earlier checkpoint"
                )
    return (
        [f"warning: {_count(unused, 'weight')} in the files not used by the model ({_first(unused)})"] if unused else []
    )


def _check_names(checkpoint: Checkpoint, info: dict[str, Any], num_layers: int | None) -> None:
    """Refuse tensors that are missing, have another shape, or belong to surplus layers or to an adapter."""
    missing, unused = sorted(info.get("missing_keys", ())), sorted(info.get("unexpected_keys", ()))
    if info.get("mismatched_keys"):
        name, shape, expected = sorted(info["mismatched_keys"])[0]
        raise EvalError(
            f"{checkpoint.source}: {name} has the shape {tuple(shape)}, its configuration says {tuple(expected)}; "
            "configuration and weights are of two models, copy both from one"
        )
    if missing:
        raise EvalError(
            f"{checkpoint.source}: {_count(missing, 'weight')} of the model {_is(missing)} missing ({_first(missing)})"
            f"{_layer_hint(missing, num_layers)}; export the checkpoint again, whole"
        )
    surplus = [name for name in unused if num_layers is not None and _layer(name) >= num_layers]
    if surplus:
        raise EvalError(
            f"{checkpoint.source}: config.json says num_hidden_layers {num_layers}, the weights hold "
            f"{max(map(_layer, surplus)) + 1} ({_first(surplus)}); set num_hidden_layers to what was trained"
        )
    adapters = [name for name in unused if "lora_" in name or ".base_layer." in name]
    if adapters:
        raise EvalError(
            f"{checkpoint.source}: {_count(adapters, 'weight')} of an adapter {_is(adapters)} not merged "
            f"({_first(adapters)}); merge the adapter into the model and export it again"
        )


def _loading_info(checkpoint: Checkpoint, engine: str) -> tuple[dict[str, Any], Any]:
    """Return the names that transformers finds missing, surplus or misshapen, and the configuration.

    The model is created on the meta device, without storage. (Without accelerate it is really loaded, and dropped.)
    """
    from transformers import AutoModelForCausalLM

    config = load_full_config(checkpoint)
    if engine == "vllm" and getattr(config, "quantization_config", None) is not None:
        return {}, None  # vLLM has its own names for quantised tensors, and transformers may lack their reader
    device = {"device_map": "meta"} if importlib.util.find_spec("accelerate") is not None else {}
    try:
        with _silent():
            _, info = AutoModelForCausalLM.from_pretrained(
                checkpoint.source,
                revision=checkpoint.revision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check_names` refuses them
                **device,
            )
    except Exception as error:  # safetensors, torch and each model class raise their own errors on bad files
        raise loading_error(checkpoint, "model", error) from error
    return info, config


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress transformers' own table of missing weights: the errors here replace it."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _files(checkpoint: Checkpoint) -> list[Path]:
    """Return the local weight files of a folder or of a downloaded hub checkpoint."""
    if checkpoint.folder is not None:
        return weight_files(checkpoint.folder)
    from huggingface_hub import snapshot_download

    try:  # reading their headers has downloaded them
        folder = snapshot_download(checkpoint.source, revision=checkpoint.revision, local_files_only=True)
    except Exception as error:  # the hub's client raises its own errors
        raise loading_error(checkpoint, "model", error) from error
    return weight_files(Path(folder))


def _finite(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (name, whether all values are finite) of each floating-point tensor in a file."""
    import torch

    def is_finite(tensor: torch.Tensor) -> bool:
        if not tensor.numel():
            return True
        # One-byte types lack comparisons; their conversion is exact. The extremes are NaN if any value is NaN, and are
        # ten times faster to compute than isfinite of each bfloat16 value.
        extremes = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
        return bool(torch.isfinite(extremes.min) and torch.isfinite(extremes.max))

    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # the file is not a dictionary
                tensor = file.get_tensor(name)
                if tensor.is_floating_point():
                    yield name, is_finite(tensor)
        return
    for name, tensor in torch.load(path, map_location="cpu", weights_only=True, mmap=True).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            yield name, is_finite(tensor)


def _layer(name: str) -> int:
    """Return the layer number in a tensor's name; -1 if there is none."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else -1


def _layer_hint(missing: Iterable[str], num_layers: int | None) -> str:
    """Return a hint that the configuration has too many layers, if exactly the last layers are missing."""
    layers = {_layer(name) for name in missing} - {-1}
    if num_layers is None or not layers or layers != set(range(min(layers), num_layers)):
        return ""
    return f"; config.json says num_hidden_layers {num_layers}, the weights may hold {min(layers)}"


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

"""Checks of a checkpoint's weights against its configuration, before a model is asked anything.

A tensor that is missing would be filled with random numbers, one that does not belong would be left out, and NaN
would give an answer all the same: each is a score of another model. So each is refused by name. What the model
class itself lets be absent or ignores (tied embeddings, old buffers, layers for multi-token prediction) is fine.
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
from evalkit.generation.decoding import cannot_load

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")


def check_weights(checkpoint: Checkpoint, *, engine: str) -> list[str]:
    """Refuse weights that are not those of the configuration; return remarks on what is not used.

    The names and shapes come from the files' headers; the values are read once, for NaN and infinity.

    Raises:
        EvalError: a tensor is missing, has another shape, belongs to a layer that the configuration does not have,
            or holds NaN or infinity; or the checkpoint cannot be loaded at all.
    """
    info, config = _loading_info(checkpoint, engine)
    missing, unused = sorted(info.get("missing_keys", ())), sorted(info.get("unexpected_keys", ()))
    if info.get("mismatched_keys"):
        name, found, expected = sorted(info["mismatched_keys"])[0]
        raise EvalError(
            f"{checkpoint.source}: {name} has the shape {tuple(found)}, its configuration says {tuple(expected)}; "
            "configuration and weights are of two models, copy both from one"
        )
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    if missing:
        raise EvalError(
            f"{checkpoint.source}: {_count(missing, 'weight')} of the model {_is(missing)} missing ({_first(missing)})"
            f"{_promise(missing, num_layers)}; export the checkpoint again, whole"
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


def _loading_info(checkpoint: Checkpoint, engine: str) -> tuple[dict[str, Any], Any]:
    """Return what transformers finds when it lays the files' tensors out in the model, and the configuration.

    Nothing is loaded: the model has no storage. (Without accelerate it is loaded for real, and dropped.)
    """
    from transformers import AutoModelForCausalLM

    config = _config(checkpoint)
    if engine == "vllm" and getattr(config, "quantization_config", None) is not None:
        return {}, None  # names of quantised tensors are the engine's own; transformers may lack what reads them
    place = {"device_map": "meta"} if importlib.util.find_spec("accelerate") is not None else {}
    try:
        with _silent():
            _, info = AutoModelForCausalLM.from_pretrained(
                checkpoint.source,
                revision=checkpoint.revision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused above
                **place,
            )
    except Exception as error:  # safetensors, torch and each model class fail in their own ways on bad files
        raise cannot_load(checkpoint, "model", error) from error
    return info, config


def _config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision)
    except Exception as error:  # an unknown architecture and a broken file come as different errors
        raise cannot_load(checkpoint, "configuration", error) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers' own table of missing weights off the terminal: what it says is said in one line."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _files(checkpoint: Checkpoint) -> list[Path]:
    if checkpoint.folder is not None:
        return weight_files(checkpoint.folder)
    from huggingface_hub import snapshot_download

    try:  # reading their headers has brought them here
        folder = snapshot_download(checkpoint.source, revision=checkpoint.revision, local_files_only=True)
    except Exception as error:  # the hub's client raises its own errors
        raise cannot_load(checkpoint, "model", error) from error
    return weight_files(Path(folder))


def _finite(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (name, whether all values are finite) of each tensor of floating point in a file."""
    import torch

    def is_finite(tensor: torch.Tensor) -> bool:
        if not tensor.numel():
            return True
        # A byte per value: no comparison is defined for these, and the conversion is exact. The extremes are NaN when
        # any value is, and are found ten times faster than by asking each bfloat16 value whether it is finite.
        extremes = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
        return bool(torch.isfinite(extremes.min) and torch.isfinite(extremes.max))

    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                tensor = file.get_tensor(name)
                if tensor.is_floating_point():
                    yield name, is_finite(tensor)
        return
    for name, tensor in torch.load(path, map_location="cpu", weights_only=True, mmap=True).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            yield name, is_finite(tensor)


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found.group(1)) if found else -1


def _promise(missing: Iterable[str], num_layers: int | None) -> str:
    """Say that the configuration promises more layers than there are, where whole last layers are missing."""
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

"""Build a model from some layers of another, and check that nothing else changed.

The short model is built from a configuration, not by deleting layers, so that a folder saved from it loads as the same
model. Three checks follow: every kept layer has the parts and settings of the original, every weight has a source, and
the hidden states equal those of the whole model with the other layers bypassed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from shards.errors import first_line
from student_train.errors import StudentError
from student_train.model.parts import decoder_of, layers_of, with_hidden
from student_train.model.probe import MODEL_ERRORS, TOLERANCE, last_hidden, probing, random_ids, relative_difference
from student_train.pruning.layer_config import recut

_NUMBER = re.compile(r"(^|_)(idx|index|id|number|layer_num)$|^num_(hidden_)?layers$")
"""Attributes of a layer that hold its number or the number of all layers, which change."""
_PROBE_TOKENS = 24


def shorten(model: Any, kept: Sequence[int]) -> Any:
    """Return a new model with some layers of another.

    Args:
        model: transformers causal language model, float32.
        kept: Indices of the kept layers, ascending.

    Returns:
        A model of the same class, with weights of its own.

    Raises:
        StudentError: The cut changes more than the number of layers; the message holds the difference.
    """
    from transformers import AutoModelForCausalLM

    num_layers = len(layers_of(model))
    config = copy.deepcopy(model.config)
    recut(config.get_text_config(), kept)
    # A round trip derives settings again, so that the model that is built equals one loaded from its saved folder.
    config = type(config).from_dict(config.to_dict())
    try:
        short = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        short.load_state_dict(_weights(model, short, kept, num_layers))
    except MODEL_ERRORS as error:
        text = " ".join(str(error).split())[:200]
        raise _changed(model, kept, f"{type(error).__name__}: {text}") from None
    short.generation_config = model.generation_config
    _require_same_layers(model, short, kept)
    _require_same_output(model, short, kept)
    return short


def _weights(model: Any, short: Any, kept: Sequence[int], num_layers: int) -> dict[str, torch.Tensor]:
    """Return the weights of `short`, taken from `model` under the original layer numbers."""
    lists = [name for name, module in _layer_lists(decoder_of(model), num_layers)]
    names = {id(module): name for name, module in model.named_modules()}
    prefix = names[id(decoder_of(model))]
    number = re.compile(
        rf"^({re.escape(prefix + '.' if prefix else '')}(?:{'|'.join(map(re.escape, lists))})\.)(\d+)(?=\.|$)"
    )
    old, new = model.state_dict(), {}
    for key, value in short.state_dict().items():
        source = old[number.sub(lambda match: f"{match[1]}{kept[int(match[2])]}", key)]
        new[key] = source if source.shape == value.shape else _slices(source, value.shape, kept, num_layers)
    return new


def _layer_lists(decoder: Any, num_layers: int) -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield the lists of `num_layers` modules that are not inside another list."""
    for name, module in decoder.named_children():
        if isinstance(module, nn.ModuleList):
            if len(module) == num_layers:
                yield name, module
        else:
            yield from ((f"{name}.{below}", inner) for below, inner in _layer_lists(module, num_layers))


def _slices(source: torch.Tensor, shape: torch.Size, kept: Sequence[int], num_layers: int) -> torch.Tensor:
    """Return the kept layers' parts of a weight that has a part for each layer along one dimension."""
    for dim, (long, short) in enumerate(zip(source.shape, shape, strict=True)):
        if long != short:
            parts = source.unflatten(dim, (num_layers, long // num_layers))
            return parts.index_select(dim, torch.tensor(list(kept))).flatten(dim, dim + 1)
    return source


def _require_same_layers(model: Any, short: Any, kept: Sequence[int]) -> None:
    """Raise StudentError at the first part or setting of a kept layer that differs from the original's."""
    old, new = layers_of(model), layers_of(short)
    if len(new) != len(kept):
        raise _changed(model, kept, f"{len(new)} layers, expected {len(kept)}")
    for j, i in enumerate(kept):
        if (difference := _layer_difference(i, old[i], new[j])) is not None:
            raise _changed(model, kept, difference)


def _layer_difference(number: int, original: nn.Module, copied: nn.Module) -> str | None:
    """Return the first part or setting of a copied layer that differs from the original's; None where none does."""
    original_parts, copied_parts = dict(original.named_modules()), dict(copied.named_modules())
    if original_parts.keys() != copied_parts.keys():
        name = min({*original_parts} ^ {*copied_parts})
        return f"{name} in layer {number} or in its copy, not in both"
    for name, part in original_parts.items():
        copied_part = copied_parts[name]
        at = f"{name}." if name else ""
        if type(copied_part) is not type(part):
            return f"layer {number} with {at}{type(copied_part).__name__} in place of {type(part).__name__}"
        copied_settings = _settings(copied_part)
        for key, value in _settings(part).items():
            if copied_settings.get(key) != value:
                return f"layer {number} with {at}{key} {copied_settings.get(key)} in place of {value}"
    return None


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the plain values among the attributes of a module, without layer numbers."""
    plain = (int, float, str, type(None))
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and not _NUMBER.search(key) and isinstance(value, plain) and key != "training"
    }


def _require_same_output(model: Any, short: Any, kept: Sequence[int]) -> None:
    """Raise StudentError where `short` is not `model` with the other layers bypassed."""
    ids = random_ids(model, 1, _PROBE_TOKENS)
    try:
        with probing(model, short), _bypassed(layers_of(model), kept):
            difference = relative_difference(last_hidden(short, ids), last_hidden(model, ids))
    except MODEL_ERRORS as error:  # for instance, a hybrid without a layer of one of its kinds
        raise _changed(model, kept, f"that it does not run: {type(error).__name__}: {first_line(error)}") from None
    if not difference <= TOLERANCE:
        raise _changed(
            model,
            kept,
            f"hidden states that differ by {difference:.1e} of the largest, expected at most {TOLERANCE:.0e}",
        )


@contextmanager
def _bypassed(layers: Sequence[nn.Module], kept: Sequence[int]) -> Iterator[None]:
    """Make each layer that is not kept return its input."""

    def bypass(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        hidden = args[0] if args else named["hidden_states"]
        return with_hidden(output, hidden)

    hooks = [layer.register_forward_hook(bypass, with_kwargs=True) for i, layer in enumerate(layers) if i not in kept]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _changed(model: Any, kept: Sequence[int], difference: str) -> StudentError:
    return StudentError(
        f"student-layers: keeping layers {', '.join(map(str, kept))} of a {type(model).__name__} changes more than "
        f"their number: found {difference}; expected each layer as it was; keep others "
        "(--layer-choice, --student-layers), or all"
    )

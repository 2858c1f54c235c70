"""Rows of a transformers cache: which caches are known, and how their rows are selected and joined.

A layer keeps keys and values of each position, or convolutional and recurrent states of each row, or both. The classes
that are listed here keep everything that a row needs in places that are known. Any other class is refused by name: a
row that is selected without a part of its state gives wrong logits, and no error.

Shape suffixes: B rows, K key heads, T positions, D head size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import cache_utils
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from shards.decoding.growing_cache import GrowingLayer

_ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer, GrowingLayer)
_RECURRENT = tuple(
    getattr(cache_utils, name)
    for name in ("LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer")
    if hasattr(cache_utils, name)  # transformers 5
)
_STATES = ("conv_states", "recurrent_states")
"""Dictionaries of a recurrent layer, with a tensor of all rows or None for each state."""


class UnknownCacheError(ValueError):
    """A model whose cache has rows that cannot be selected. One string: found, expected, remedy."""


def empty_cache(model: Any) -> Any:
    """Return an empty cache as the model makes one for itself, None if it keeps states elsewhere. It does not run.

    Args:
        model: A causal language model of transformers.
    """
    parameters = inspect.signature(model.forward).parameters
    if "input_ids" in parameters and "past_key_values" not in parameters:  # Mamba
        return None
    if not getattr(model, "_supports_default_dynamic_cache", lambda: True)():  # MiniMax, RWKV
        return None
    cache = DynamicCache(config=model.config)
    # The states of RecurrentGemma are attributes of its modules.
    return None if getattr(model, "_is_stateful", False) and not is_recurrent(cache) else cache


def require_known(cache: Any, *, name: str) -> None:
    """Check that the rows of a cache can be selected.

    Args:
        cache: The `past_key_values` of a model, None if there are none.
        name: Name of the model in the message.

    Raises:
        UnknownCacheError: The cache or a layer of it is of another class.
    """
    if type(cache) is not DynamicCache:
        found = "states outside of past_key_values" if cache is None else f"a {type(cache).__name__}"
    elif unknown := sorted({type(layer).__name__ for layer in cache.layers if not _is_known(layer)}):
        found = f"cache layers {', '.join(unknown)}"
    elif is_recurrent(cache) and not is_joinable(cache):
        found = "recurrent states beside sliding windows"
    else:
        return
    known = ", ".join(kind.__name__ for kind in (DynamicLayer, DynamicSlidingWindowLayer, *_RECURRENT))
    raise UnknownCacheError(
        f"{name}: found {found}, expected a DynamicCache of {known}, whose rows can be selected; use --engine vllm "
        "where vLLM has the model, or another model"
    )


def is_recurrent(cache: Any) -> bool:
    """Return whether a layer of a known cache has states that padding would change."""
    return any(type(layer) in _RECURRENT for layer in cache.layers)


def is_joinable(cache: Any) -> bool:
    """Return whether all layers of a known cache keep all of their keys and values: windows cannot be padded."""
    return all(type(layer) is DynamicLayer or type(layer) in _RECURRENT for layer in cache.layers)


def select(cache: Any, places_B: torch.Tensor) -> None:
    """Keep the rows of a known cache at these places, in this order; a place may be named more than once.

    Args:
        cache: The cache, which is changed.
        places_B: Places of the rows, int64.
    """
    for layer in cache.layers:
        if type(layer) in _RECURRENT:
            layer.reorder_cache(places_B)  # batch_select_indices, where it exists, leaves the states as they are
        else:
            layer.batch_select_indices(places_B)


def joined(caches: Sequence[Any], width: int) -> Any:
    """Return one cache with the rows of several joinable ones. The others lose theirs.

    Args:
        caches: Caches of the same model that hold a prefill each; a single one may be of any kind.
        width: Positions of the longest one. The keys and values of the others are padded on the left.
    """
    first, *others = caches
    if not others:
        return first
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        for name in ("keys", "values"):
            if getattr(layers[0], name, None) is not None:
                padded = [_padded(states_BKTD, width) for states_BKTD in _taken(name, *layers)]
                setattr(layers[0], name, torch.cat(padded))
        for name in _STATES:
            states_of = getattr(layers[0], name, {})
            for number in list(states_of):
                if states_of[number] is not None:
                    states_of[number] = torch.cat([getattr(layer, name).pop(number) for layer in layers])
    return first


def _is_known(layer: Any) -> bool:
    if type(layer) in _RECURRENT:
        return all(isinstance(getattr(layer, name, None), dict) for name in _STATES)
    return type(layer) in _ATTENTION


def _padded(states_BKTD: torch.Tensor, width: int) -> torch.Tensor:
    return functional.pad(states_BKTD, (0, 0, width - states_BKTD.shape[-2], 0))


def _taken(name: str, *layers: Any) -> Iterator[torch.Tensor]:
    """Yield the keys or the values of layers, which do not keep them."""
    for layer in layers:
        yield getattr(layer, name)
        setattr(layer, name, None)

"""A causal language model that decodes a batch of rows, which shrinks as rows finish.

Each distinct prompt of a batch is prefilled once, and its keys and values are copied to its rows. Prompts of like
length are prefilled together: little padding, and activations of a few thousand tokens only. Padding would change the
states of recurrent and convolutional layers: with such layers, only prompts of equal length are prefilled together.

Shape suffixes: B rows of the batch, D distinct prompts, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from shards.decoding import cache_rows, grouped_attention, growing_cache
from shards.decoding.soft_cap import is_capped

CPU_PREFILL_TOKENS, PREFILL_TOKENS = 2048, 32_768
"""Most tokens that are prefilled together, padding included: on a CPU, and elsewhere."""


PADDING_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest change of logits that counts as rounding, as a share of their range; 1/32 for other types."""


class CachedModel:
    """A model with the keys and values of its current batch.

    Args:
        model: A causal language model of transformers, on its device. Its SDPA attention becomes the grouped one.
        vocab_size: Logits of each position that are returned; None for all, padding of the vocabulary included.

    Raises:
        UnknownCacheError: The rows of the model's cache cannot be selected.
    """

    def __init__(self, model: Any, *, vocab_size: int | None = None) -> None:
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager" if is_capped(model.config) else grouped_attention.register())
        self.config = model.config
        self._model, self._vocab_size = model, vocab_size
        self._parameters = inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._mask_BT = torch.empty(0)
        cache = cache_rows.empty_cache(model)
        cache_rows.require_known(cache, name=type(model).__name__)
        self._is_recurrent = cache_rows.is_recurrent(cache)
        self._is_padding_known = "position_ids" in self._parameters
        """Whether padding is known to change no logits."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read a batch of prompts, each distinct one once; return the next-token logits: (B, V), float32.

        Raises:
            UnknownCacheError: The model made another cache than its config asks for, or padding changes its logits.
        """
        distinct = sorted(dict.fromkeys(map(tuple, prompts)), key=len)
        if not self._is_padding_known and len(distinct[0]) < len(distinct[-1]):
            self._require_padding(distinct[0], distinct[-1])
        place_of = {ids: place for place, ids in enumerate(distinct)}
        places_B = torch.tensor([place_of[tuple(ids)] for ids in prompts], device=self._model.device)
        logits_DV = self._prefill(distinct)
        growing_cache.make_room(self._cache)
        self._select(places_B)
        return logits_DV[places_B]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts in groups, and join their caches where no layer keeps a window only."""
        logits, caches, masks = [], [], []
        most = CPU_PREFILL_TOKENS if self._model.device.type == "cpu" else PREFILL_TOKENS
        for group in groups(prompts, most, equal=self._is_recurrent):
            logits.append(self._read(group))
            if len(group) < len(prompts) and not cache_rows.is_joinable(self._cache):
                return self._read(prompts)
            caches.append(self._cache)
            masks.append(self._mask_BT)
        width = max(mask_GT.shape[1] for mask_GT in masks)
        self._cache = cache_rows.joined(caches, width)
        self._mask_BT = torch.cat([functional.pad(mask_GT, (width - mask_GT.shape[1], 0)) for mask_GT in masks])
        return torch.cat(logits)

    def _read(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts into a new cache; return the next-token logits: (prompts, V), float32."""
        width = max(map(len, prompts))
        # Padded on the left, so that the next position is the same for all rows. Id 0 is masked.
        padded = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self._cache, self._mask_BT = None, torch.tensor(mask, device=self._model.device)
        logits_DV = self._forward(torch.tensor(padded, device=self._model.device))
        cache_rows.require_known(self._cache, name=type(self._model).__name__)
        assert cache_rows.is_recurrent(self._cache) == self._is_recurrent, "not the cache that the config asks for"
        return logits_DV

    def _require_padding(self, prompt: Sequence[int], longer: Sequence[int]) -> None:
        """Check that a model which takes no positions derives them from the mask: BART's decoder counts padding.

        A prompt is read alone, and beside a longer one.
        """
        alone_V, (padded_V, _) = self._read([prompt])[0], self._read([prompt, longer])
        largest = float((padded_V - alone_V).abs().max() / (alone_V - alone_V.mean()).abs().max().clamp_min(1e-12))
        if not largest <= PADDING_TOLERANCE.get(self._model.dtype, 1 / 32):
            raise cache_rows.UnknownCacheError(
                f"{type(self._model).__name__}: found logits that padding changes by {largest:.2g} of their range, "
                "expected a model that takes position_ids, or derives positions from the mask; use --engine vllm where "
                "vLLM has the model, or another model"
            )
        self._is_padding_known = True

    def decode(self, new_ids: list[int], kept: list[int]) -> torch.Tensor:
        """Read one new id for each of the rows in `kept`; return the next-token logits: (len(kept), V), float32.

        Args:
            new_ids: One id for each kept row.
            kept: Places of the rows that go on, in the batch as it was.
        """
        if len(kept) < len(self._mask_BT):
            self._select(torch.tensor(kept, device=self._model.device))
        self._mask_BT = torch.cat([self._mask_BT, self._mask_BT.new_ones(len(kept), 1)], dim=1)
        return self._forward(torch.tensor(new_ids, device=self._model.device)[:, None])

    def _forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        optional: dict[str, Any] = {}
        if "position_ids" in self._parameters:
            optional["position_ids"] = (self._mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        if "logits_to_keep" in self._parameters:
            optional["logits_to_keep"] = 1
        output = self._model(
            input_ids=ids_BT, attention_mask=self._mask_BT, past_key_values=self._cache, use_cache=True, **optional
        )
        self._cache = getattr(output, "past_key_values", None)
        return torch.as_tensor(output.logits[:, -1, : self._vocab_size].float())

    def _select(self, places_B: torch.Tensor) -> None:
        cache_rows.select(self._cache, places_B)
        self._mask_BT = self._mask_BT[places_B]


def groups(prompts: Sequence[Sequence[int]], most: int, *, equal: bool = False) -> Iterator[Sequence[Sequence[int]]]:
    """Yield prompts, which are sorted by length, in groups of at most `most` tokens with their padding.

    Args:
        prompts: The prompts.
        most: Most tokens of a group of several prompts.
        equal: Whether the prompts of a group have the same length.
    """
    begin = 0
    for end, ids in enumerate(prompts):
        is_longer = equal and len(ids) > len(prompts[begin])
        if end > begin and (is_longer or (end - begin + 1) * len(ids) > most):
            yield prompts[begin:end]
            begin = end
    yield prompts[begin:]

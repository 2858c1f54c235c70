"""Keys and values that grow in place.

`DynamicLayer` of transformers copies all keys and values of a layer whenever it appends a position. With many answers
at a time these copies take a third of a decoding step on a CPU. A `GrowingLayer` keeps a buffer with free positions,
and gives attention a view of the positions in use.

Shape suffixes: B rows, K key heads, C capacity in positions, N new positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Free positions of a new buffer: one copy for so many steps."""


def make_room(cache: Any) -> None:
    """Replace the layers of a transformers cache that copy by layers that grow in place.

    Others stay: windows, and layers that hold nothing, as of a BART decoder whose config counts an encoder's, too.

    Args:
        cache: A `transformers.Cache` that holds the keys and values of a prefill.
    """
    cache.layers = [
        GrowingLayer.of(layer) if type(layer) is DynamicLayer and layer.keys is not None else layer
        for layer in cache.layers
    ]


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A layer of a cache with free positions. `keys` and `values` are views of the positions in use."""

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor]
    """Keys and values with free positions, each (B, K, C, D)."""

    @classmethod
    def of(cls, layer: DynamicLayer) -> GrowingLayer:
        """Return a layer with the keys and values of another one; room is made by the first update."""
        growing = cls()
        growing.__dict__.update(layer.__dict__)
        growing._buffers = (layer.keys, layer.values)
        return growing

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values; return all of them.

        Args:
            key_states: (B, K, N, D).
            value_states: (B, K, N, D).
            args: Ignored, as by `DynamicLayer`.
            kwargs: Ignored.
        """
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        # Methods of DynamicLayer that are not overridden, such as reorder_cache, replace `keys` and `values`.
        is_view = self.keys.data_ptr() == self._buffers[0].data_ptr()
        if not is_view or end > self._buffers[0].shape[-2]:
            self._buffers = (_with_capacity(self.keys, end + ROOM), _with_capacity(self.values, end + ROOM))
        for buffer_BKCD, new_BKND in zip(self._buffers, (key_states, value_states), strict=True):
            buffer_BKCD[..., length:end, :] = new_BKND
        self._use(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows at `indices`: (B,), int64."""
        length = self.keys.shape[-2]
        self._buffers = (self._buffers[0][indices], self._buffers[1][indices])
        self._use(length)

    def _use(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)


def _with_capacity(states_BKTD: torch.Tensor, capacity: int) -> torch.Tensor:
    """Return a buffer of `capacity` positions that begins with these; the rest is not initialised."""
    rows, heads, length, size = states_BKTD.shape
    buffer_BKCD = states_BKTD.new_empty(rows, heads, capacity, size)
    buffer_BKCD[..., :length, :] = states_BKTD
    return buffer_BKCD

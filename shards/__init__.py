"""The format of a teacher's records: write, check, publish, edit and read caches of shards.

`shards.open(path)` returns a `Cache`: `len(cache)` chunks, and `cache[i]` is a decoded `Chunk` of numpy arrays.

Names are imported on first use, so that `logit-shards --help` imports neither Arrow nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shards.errors import (
        CorruptShardError,
        FormatVersionError,
        IncompleteCacheError,
        ShardError,
        StoreError,
        TokensRemovedError,
    )
    from shards.format.chunk import Chunk, RowInfo
    from shards.format.manifest import Manifest
    from shards.read import Cache, open

_MODULE_OF = {
    "Cache": "read",
    "Chunk": "format.chunk",
    "CorruptShardError": "errors",
    "FormatVersionError": "errors",
    "IncompleteCacheError": "errors",
    "Manifest": "format.manifest",
    "RowInfo": "format.chunk",
    "ShardError": "errors",
    "StoreError": "errors",
    "TokensRemovedError": "errors",
    "open": "read",
}

__all__ = [
    "Cache",
    "Chunk",
    "CorruptShardError",
    "FormatVersionError",
    "IncompleteCacheError",
    "Manifest",
    "RowInfo",
    "ShardError",
    "StoreError",
    "TokensRemovedError",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'shards' has no attribute {name!r}")
    return getattr(importlib.import_module(f"shards.{_MODULE_OF[name]}"), name)

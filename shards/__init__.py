"""The format that a teacher's records are kept in: what is written, checked, published and read.

`shards.open(path)` returns a `Cache`: `len(cache)` chunks, `cache[i]` a decoded `Chunk` of numpy arrays.

Names are loaded on first use, so that `logit-shards --help` waits for neither Arrow nor numpy.
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

_HOME = {
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
    if name not in _HOME:
        raise AttributeError(f"module 'shards' has no attribute {name!r}")
    return getattr(importlib.import_module(f"shards.{_HOME[name]}"), name)

"""The format that a teacher's records are kept in: what is written, checked, published and read.

`shards.open(path)` returns a `Cache`: `len(cache)` chunks, `cache[i]` a decoded `Chunk` of numpy arrays.
"""

from shards.chunk import Chunk, RowInfo
from shards.errors import (
    CorruptShardError,
    FormatVersionError,
    IncompleteCacheError,
    ShardError,
    StoreError,
)
from shards.manifest import Manifest
from shards.read import Cache, open

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
    "open",
]

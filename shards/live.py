"""Read a cache while `teacher-dump` still writes it.

Before its first task, `teacher-dump` writes `draft.json`: a manifest without shards. The draft and the entries of the
complete shards make a cache, although there is no `manifest.json`. Complete shards never change, so everything read
stays valid, and only more shards appear. If `manifest.json` exists, it alone counts.

Not guaranteed: that all complete shards are visible at once in a directory that is shared over a network.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

from shards.errors import CorruptShardError, IncompleteCacheError
from shards.format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from shards.format.side_files import ENTRY_SUFFIX
from shards.read import Cache
from shards.storage.store import Store, open_store

DRAFT_NAME = "draft.json"
_ENTRY_ENDING = ".arrow" + ENTRY_SUFFIX


@dataclass(frozen=True, slots=True)
class LiveCache:
    """The part of a cache that is written."""

    cache: Cache
    """The complete shards, by name, which is the order of their tasks."""
    complete: bool
    """Whether the cache is complete."""


def open_live(path: str | os.PathLike[str]) -> LiveCache | None:
    """Return the part of a cache that is written, None if no dump has begun.

    Args:
        path: Directory or URL.

    Raises:
        StoreError: If the path cannot be reached, or, as on a web server, cannot be listed.
        CorruptShardError: If the manifest, the draft or an entry is damaged.
    """
    store = open_store(path)
    for name in (MANIFEST_NAME, DRAFT_NAME):
        try:
            raw = store.read(name)
        except IncompleteCacheError:
            continue
        manifest = Manifest.from_bytes(raw, where=f"{store.root}/{name}")
        if name == DRAFT_NAME:
            manifest = replace(manifest, shards=_complete_shards(store))
        return LiveCache(Cache.of(path, manifest), complete=name == MANIFEST_NAME)
    return None


def _complete_shards(store: Store) -> tuple[ShardEntry, ...]:
    names = sorted(name for name in store.names() if name.endswith(_ENTRY_ENDING) and not name.startswith("."))
    return tuple(_read_entry(store, name) for name in names)


def _read_entry(store: Store, name: str) -> ShardEntry:
    raw = store.read(name)
    try:
        return ShardEntry.from_dict(json.loads(raw))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CorruptShardError(
            f"{store.root}/{name}: not a shard's entry ({error!r}); dump that shard again"
        ) from None

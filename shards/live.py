"""What is complete of a cache that is still being written? Its shards so far, as a cache.

`teacher-dump` puts `draft.json` into the folder before its first task: a manifest that lists no shards yet. With it and
the entries of the complete shards, a folder without `manifest.json` can be read. Shards never change once they are
complete, so what was read stays true; only more of them come. Where `manifest.json` is, it alone counts.

NOT promised: that all shards so far are seen at once, where a folder is shared over a network.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

from shards.errors import CorruptShardError, IncompleteCacheError
from shards.format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from shards.read import Cache
from shards.storage.store import Store, open_store

DRAFT_NAME = "draft.json"
_ENTRY = ".arrow.json"


@dataclass(frozen=True, slots=True)
class LiveCache:
    """A cache as far as it is written."""

    cache: Cache
    """The shards that are complete, by name, which is the order of their tasks."""
    complete: bool
    """Whether no more will come."""


def open_live(path: str | os.PathLike[str]) -> LiveCache | None:
    """Return what there is of the cache at a path or URL; None where nothing was begun yet.

    Raises StoreError where the place cannot be reached or, as on a web server, not be listed, CorruptShardError where
    the manifest or the draft of it is damaged.
    """
    store = open_store(path)
    for name in (MANIFEST_NAME, DRAFT_NAME):
        try:
            raw = store.read(name)
        except IncompleteCacheError:
            continue
        manifest = Manifest.from_bytes(raw, where=f"{store.root}/{name}")
        if name == DRAFT_NAME:
            manifest = replace(manifest, shards=_entries(store))
        return LiveCache(Cache.of(path, manifest), complete=name == MANIFEST_NAME)
    return None


def _entries(store: Store) -> tuple[ShardEntry, ...]:
    found = []
    for name in sorted(store.names()):
        if name.endswith(_ENTRY) and not name.startswith("."):
            try:
                entry = ShardEntry.from_dict(json.loads(store.read(name)))
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                raise CorruptShardError(
                    f"{store.root}/{name}: not a shard's entry ({error!r}); dump that shard again"
                ) from None
            found.append(entry)
    return tuple(found)

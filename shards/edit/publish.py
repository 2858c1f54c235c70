"""How does a cache leave, and arrive? Shards first, the manifest last, and what is there already is not sent again.

A place without a manifest holds no cache yet, so nobody reads a half. Publishing or fetching again continues: a file
that is there with the right size and digest is skipped (a hub's own digest is taken, elsewhere the file is read).
Every file's digest is checked before it is sent and after it is fetched.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from shards.edit.data_card import card
from shards.edit.hydrate import strip
from shards.edit.rewrite import columns, fetch_shard
from shards.errors import CorruptShardError, IncompleteCacheError, ShardError
from shards.format.manifest import MANIFEST_NAME, FileEntry, Manifest, ShardEntry
from shards.format.side_files import CARD_NAME
from shards.read import Cache
from shards.read import open as open_cache
from shards.storage.atomic import file_sha256, write_atomic
from shards.storage.store import OnBytes, Store, ignore_bytes, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """What was done."""

    manifest: Manifest
    sent: int
    """Files that were copied."""
    skipped: int
    """Files that were there already."""


def publish(cache: Cache, url: str, *, without_tokens: bool = False, on_bytes: OnBytes = ignore_bytes) -> Moved:
    """Copy a cache to a folder or URL, with a data card. `on_bytes` hears of every shard's bytes, sent or skipped.

    Raises ShardError where another cache is there, or a file differs from what the manifest says.
    """
    target = open_store(url)
    without_tokens = without_tokens and cache.manifest.layout.tokens == "kept"
    there = _manifest_at(target)
    if there is not None and not _same(there, cache, without_tokens):
        raise ShardError(
            f"{url}: found another cache (manifest {there.sha256[:12]}), expected nothing or this one "
            f"({cache.manifest_sha256[:12]}); choose another URL"
        )
    entries: list[ShardEntry] = []
    licences: Counter[str] = Counter()
    sent = skipped = 0
    with tempfile.TemporaryDirectory(prefix="teacherless-") as scratch:
        for entry in cache.manifest.shards:
            source = _verified(cache, entry, Path(scratch) / "whole")
            licences.update(columns(source, ("licence",))["licence"].to_pylist())
            leaving, path = entry, source
            if without_tokens:
                leaving = strip(source, entry, cache.manifest.layout, Path(scratch) / "stripped")
                path = Path(scratch) / "stripped" / leaving.name
            if there is not None and leaving not in there.shards:
                raise ShardError(
                    f"{url}/{entry.name}: found the copy without tokens of another release, which compressed it "
                    "otherwise; choose another URL"
                )
            if target.holds(leaving.name, size=leaving.bytes, sha256=leaving.sha256):
                skipped += 1
                on_bytes(entry.bytes)
            else:
                # Progress counts bytes of the whole shard; one without text is smaller, so it counts when it is there.
                target.upload(path, leaving.name, on_bytes=ignore_bytes if without_tokens else on_bytes)
                on_bytes(entry.bytes if without_tokens else 0)
                sent += 1
            entries.append(leaving)
            for done in {source, path}:
                if done.is_relative_to(scratch):
                    done.unlink()
        for file in cache.manifest.files:
            if target.holds(file.name, size=file.bytes, sha256=file.sha256):
                skipped += 1
            else:
                copy = Path(scratch) / "file"
                cache.store.download(file.name, copy, size=file.bytes, sha256=file.sha256)
                target.upload(copy, file.name)
                sent += 1
    manifest = cache.manifest
    if without_tokens:
        step = {"step": "remove tokens", "from": [cache.manifest_sha256]}
        manifest = replace(
            manifest,
            layout=replace(manifest.layout, tokens="removed"),
            shards=tuple(entries),
            history=(*manifest.history, step),
        )
    address = "PATH" if target.is_local else url  # a folder of this machine means nothing to a reader
    target.put(CARD_NAME, card(manifest, licences=licences, url=address).encode())
    if there is None:
        target.put(MANIFEST_NAME, manifest.to_bytes())
    return Moved(manifest=manifest, sent=sent, skipped=skipped)


def fetch(url: str, folder: Path, *, on_bytes: OnBytes = ignore_bytes) -> Moved:
    """Copy a cache from a URL to a local folder, or mend the copy that is there.

    Raises ShardError where the folder holds another cache.
    """
    cache = open_cache(url)
    here = open_store(folder)
    there = _manifest_at(here)
    if there is not None and there.sha256 != cache.manifest_sha256:
        raise ShardError(
            f"{folder}: found another cache (manifest {there.sha256[:12]}), expected nothing or that of {url} "
            f"({cache.manifest_sha256[:12]}); choose another folder"
        )
    sent = skipped = 0
    wanted: list[ShardEntry | FileEntry] = [*cache.manifest.shards, *cache.manifest.files]
    for entry in wanted:
        heard = on_bytes if isinstance(entry, ShardEntry) else ignore_bytes
        if here.holds(entry.name, size=entry.bytes, sha256=entry.sha256):
            skipped += 1
            heard(entry.bytes)
        else:
            path = folder / entry.name
            cache.store.download(entry.name, path, size=entry.bytes, sha256=entry.sha256, on_bytes=heard)
            sent += 1
    with contextlib.suppress(IncompleteCacheError):  # not there where somebody copied the files by hand
        write_atomic(folder / CARD_NAME, cache.store.read(CARD_NAME))
    write_atomic(folder / MANIFEST_NAME, cache.manifest.to_bytes())
    return Moved(manifest=cache.manifest, sent=sent, skipped=skipped)


def _manifest_at(store: Store) -> Manifest | None:
    """Return the manifest of the cache in a store, None where there is none or a damaged one, which is replaced."""
    if not store.exists(MANIFEST_NAME):
        return None
    try:
        return open_cache(store.root).manifest
    except CorruptShardError:
        return None


def _same(there: Manifest, cache: Cache, without_tokens: bool) -> bool:
    if not without_tokens:
        return there.sha256 == cache.manifest_sha256
    return there.layout.tokens == "removed" and there.history[-1:] == (
        {"step": "remove tokens", "from": [cache.manifest_sha256]},
    )


def _verified(cache: Cache, entry: ShardEntry, scratch: Path) -> Path:
    """Return a local path of a shard whose digest was checked: the file itself, or a copy."""
    if not cache.store.is_local:
        return fetch_shard(cache.store, entry, scratch / entry.name)
    path = Path(cache.store.base) / entry.name
    if not path.exists() or file_sha256(path) != entry.sha256:
        raise ShardError(
            f"{path}: found {'another digest than the manifest has' if path.exists() else 'no such shard'}, expected "
            f"{entry.sha256[:12]}; fetch or dump that shard again before you publish"
        )
    return path

"""Publish a cache to a directory or URL, and fetch one from there.

Shards are copied first and the manifest last, so that nobody reads half a cache. Publishing or fetching again
continues: a file that exists with the right size and digest is skipped. (A hub reports digests; elsewhere the file is
read.) The digest of every file is checked before it is sent and after it is fetched.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from shards.edit.data_card import data_card
from shards.edit.hydrate import remove_tokens
from shards.edit.rewrite import fetch_shard, read_columns
from shards.errors import CorruptShardError, IncompleteCacheError, ShardError
from shards.format.manifest import MANIFEST_NAME, FileEntry, Manifest, ShardEntry
from shards.format.side_files import CARD_NAME
from shards.read import Cache
from shards.read import open as open_cache
from shards.storage.atomic import file_sha256, write_atomic
from shards.storage.store import Store, open_store
from shards.storage.transfer import OnBytes, Upload, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """The result of publishing or fetching a cache."""

    manifest: Manifest
    sent: int
    """Number of copied files."""
    skipped: int
    """Number of files that existed."""


def publish(
    cache: Cache, url: str, *, without_tokens: bool = False, force: bool = False, on_bytes: OnBytes = ignore_bytes
) -> Transfer:
    """Copy a cache to a directory or URL, with a data card.

    Args:
        cache: The cache.
        url: Path or URL of the copy.
        without_tokens: Remove the tokens of the copy.
        force: Remove them although nobody can put them back, as those of responses.
        on_bytes: Progress callback, which gets the bytes of the shards, sent or skipped.

    Raises:
        ShardError: If there is another cache, a file of `cache` has another digest than its manifest says, or the text
            of responses would be lost.
        StoreError: If a place cannot be reached or written.
    """
    target = open_store(url)
    without_tokens = without_tokens and cache.manifest.layout.has_tokens
    if without_tokens and cache.manifest.layout.has_responses and not force:
        raise ShardError(
            f"{cache.store.root}: found responses, expected documents: what a model wrote is in no corpus, so "
            "'logit-shards hydrate' cannot put it back, and the copy is of no use for training; publish it with its "
            "tokens, or give --force to remove them for good"
        )
    published = _manifest_at(target)
    if published is not None and not _is_copy(published, cache, without_tokens):
        raise ShardError(
            f"{url}: found another cache (manifest {published.sha256[:12]}), expected nothing or this one "
            f"({cache.manifest_sha256[:12]}); choose another URL"
        )
    licences: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="teacherless-") as scratch, target.uploads() as upload:
        publisher = _Publisher(cache, target, upload, published, without_tokens, Path(scratch))
        shards: list[ShardEntry] = []
        for shard in cache.manifest.shards:
            source = publisher.checked_copy(shard)
            licences.update(read_columns(source, ("licence",))["licence"].to_pylist())
            shards.append(publisher.send_shard(shard, source, on_bytes))
        for file in cache.manifest.files:
            publisher.send_file(file)
    manifest = _without_tokens(cache.manifest, shards) if without_tokens else cache.manifest
    address = "PATH" if target.is_local else url  # a local path means nothing to a reader of the card
    target.put(CARD_NAME, data_card(manifest, licences=licences, url=address).encode())
    if published is None:
        target.put(MANIFEST_NAME, manifest.to_bytes())
    return Transfer(manifest=manifest, sent=publisher.sent, skipped=publisher.skipped)


@dataclass(slots=True)
class _Publisher:
    """Sends the files of a cache that the target does not hold."""

    cache: Cache
    target: Store
    upload: Upload
    published: Manifest | None
    without_tokens: bool
    scratch: Path
    sent: int = 0
    skipped: int = 0

    def checked_copy(self, shard: ShardEntry) -> Path:
        """Return a local path of a shard with the right digest: the file itself, or a copy."""
        store = self.cache.store
        if not store.is_local:
            return fetch_shard(store, shard, self.scratch / "whole" / shard.name)
        path = Path(store.base) / shard.name
        if not path.exists() or file_sha256(path) != shard.sha256:
            raise ShardError(
                f"{path}: found {'another digest than the manifest has' if path.exists() else 'no such shard'}, "
                f"expected {shard.sha256[:12]}; fetch or dump that shard again before you publish"
            )
        return path

    def send_shard(self, shard: ShardEntry, source: Path, on_bytes: OnBytes) -> ShardEntry:
        """Send a shard, with or without its tokens, and return the entry of the copy."""
        entry, path = shard, source
        if self.without_tokens:
            entry = remove_tokens(source, shard, self.cache.manifest.layout, self.scratch / "stripped")
            path = self.scratch / "stripped" / entry.name
        if self.published is not None and entry not in self.published.shards:
            raise ShardError(
                f"{self.target.root}/{shard.name}: found the copy without tokens of another release, which compressed "
                "it otherwise; choose another URL"
            )
        if self.target.holds(entry.name, size=entry.bytes, sha256=entry.sha256):
            self.skipped += 1
            on_bytes(shard.bytes)
        else:
            # Progress counts the bytes of the whole shard. A copy without tokens is smaller: it counts at its end.
            self.upload(path, entry.name, on_bytes=ignore_bytes if self.without_tokens else on_bytes)
            on_bytes(shard.bytes if self.without_tokens else 0)
            self.sent += 1
        for copy in {source, path}:
            if copy.is_relative_to(self.scratch):
                copy.unlink()
        return entry

    def send_file(self, file: FileEntry) -> None:
        """Send a file that is not a shard."""
        if self.target.holds(file.name, size=file.bytes, sha256=file.sha256):
            self.skipped += 1
            return
        copy = self.scratch / "file"
        self.cache.store.download(file.name, copy, size=file.bytes, sha256=file.sha256)
        self.upload(copy, file.name)
        self.sent += 1


def fetch(url: str, folder: Path, *, on_bytes: OnBytes = ignore_bytes) -> Transfer:
    """Copy a cache from a URL to a local directory, or repair the copy that is there.

    Args:
        url: Path or URL of the cache.
        folder: Directory of the copy.
        on_bytes: Progress callback, which gets the bytes of the shards, fetched or skipped.

    Raises:
        ShardError: If the directory holds another cache.
        StoreError: If a place cannot be reached or written.
    """
    cache = open_cache(url)
    target = open_store(folder)
    existing = _manifest_at(target)
    if existing is not None and existing.sha256 != cache.manifest_sha256:
        raise ShardError(
            f"{folder}: found another cache (manifest {existing.sha256[:12]}), expected nothing or that of {url} "
            f"({cache.manifest_sha256[:12]}); choose another folder"
        )
    sent = skipped = 0
    entries: list[ShardEntry | FileEntry] = [*cache.manifest.shards, *cache.manifest.files]
    for entry in entries:
        report = on_bytes if isinstance(entry, ShardEntry) else ignore_bytes
        if target.holds(entry.name, size=entry.bytes, sha256=entry.sha256):
            skipped += 1
            report(entry.bytes)
        else:
            path = folder / entry.name
            cache.store.download(entry.name, path, size=entry.bytes, sha256=entry.sha256, on_bytes=report)
            sent += 1
    with contextlib.suppress(IncompleteCacheError):  # a copy made by hand has no card
        write_atomic(folder / CARD_NAME, cache.store.read(CARD_NAME))
    write_atomic(folder / MANIFEST_NAME, cache.manifest.to_bytes())
    return Transfer(manifest=cache.manifest, sent=sent, skipped=skipped)


def _manifest_at(store: Store) -> Manifest | None:
    """Return the manifest in a store, None if there is none or a damaged one, which will be replaced."""
    if not store.exists(MANIFEST_NAME):
        return None
    try:
        return open_cache(store.root).manifest
    except CorruptShardError:
        return None


def _is_copy(published: Manifest, cache: Cache, without_tokens: bool) -> bool:
    if not without_tokens:
        return published.sha256 == cache.manifest_sha256
    return not published.layout.has_tokens and published.history[-1:] == (_removal_step(cache.manifest),)


def _without_tokens(manifest: Manifest, shards: list[ShardEntry]) -> Manifest:
    return replace(
        manifest,
        layout=replace(manifest.layout, tokens="removed"),
        shards=tuple(shards),
        history=(*manifest.history, _removal_step(manifest)),
    )


def _removal_step(manifest: Manifest) -> dict[str, object]:
    return {"step": "remove tokens", "from": [manifest.sha256]}

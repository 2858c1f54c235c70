"""Find the run to repeat: a record on this machine, or a published run, whose record and shards are fetched by digest.

Fetched files lie in the user's cache under their digests. Files that are there and whole are not fetched again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import shards
from shards.edit.publish import fetch as fetch_cache
from shards.storage.cache_dirs import cache_dir
from shards.storage.store import Store, open_store
from student_train.errors import TrainError
from student_train.reproduction.publication import (
    BASE_FOLDER,
    PUBLICATION_NAME,
    Publication,
    PublishedCache,
    read_publication,
    resolve,
)

_LOGS = ("run.json", "metrics.jsonl", "held_out.jsonl")
"""Files of a published run that a comparison reads. The weights are compared by digest and not fetched."""
_BASE_SUFFIXES = {".json", ".safetensors", ".model", ".txt", ".jinja"}
"""Files of a base model that are fetched: none of them is a pickle or a program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSource:
    """A finished run that can be repeated."""

    record: Path
    """Its `run.json` on this machine, with the logs beside it."""
    publication: Publication | None = None
    """Index of the published run; None for a record on this machine."""
    address: str = ""
    """Address of the published run; "" for a record on this machine."""
    base: Path | None = None
    """Fetched model that the student starts from; None where it was not published with the run."""

    @property
    def noise(self) -> dict[str, Any] | None:
        """Measured noise of the published run; None where the record states it."""
        return None if self.publication is None else self.publication.noise


def find_run(place: str, *, log: Callable[[str], None]) -> RunSource:
    """Return the run at a place. The files of a published one are fetched, its shards are not.

    Args:
        place: The `run.json` of a finished run, its folder, or path or URL of a published run.
        log: Prints a line for people.

    Raises:
        TrainError: There is no run, or its index is damaged.
        ShardError: The place cannot be reached, or a file there is damaged.
    """
    path = Path(place)
    is_url = "://" in place
    if not is_url and (path.is_file() or path.suffix == ".json"):
        return RunSource(record=path)
    if not is_url and (path / "run.json").is_file() and not (path / PUBLICATION_NAME).is_file():
        return RunSource(record=path / "run.json")
    store = open_store(place)
    publication = read_publication(store)
    folder = cache_dir() / "runs" / publication.sha256[:16]
    log(f"{place}: fetching the record of the run to {folder}")
    with _locked(folder):
        _fetch_files(store, publication, folder)
    base = folder / BASE_FOLDER if publication.has_base else None
    return RunSource(record=folder / "run.json", publication=publication, address=store.root, base=base)


def fetch_shards(cache: PublishedCache, *, run: str, log: Callable[[str], None]) -> str:
    """Return the path of a published cache on this machine, fetched if it is not here.

    Args:
        cache: The cache.
        run: Address of the published run.
        log: Prints a line for people.

    Raises:
        TrainError: Another cache is at its address.
        ShardError: The cache is damaged there, or cannot be reached.
    """
    url = resolve(cache.url, run=run)
    found = shards.open(url)
    if found.manifest_sha256 != cache.manifest_sha256:
        raise TrainError(
            f"{url}: found a cache with manifest {found.manifest_sha256[:12]}, expected "
            f"{cache.manifest_sha256[:12]}, which the run was trained on; ask its publisher, or name a copy of that "
            "cache with --shards"
        )
    if found.store.is_local:
        return url
    folder = cache_dir() / "caches" / cache.manifest_sha256[:16]
    log(f"{url}: fetching {found.bytes_on_disk:,} bytes of shards to {folder}")
    with _locked(folder):
        transfer = fetch_cache(url, folder)
    log(f"{folder}: complete, fetched {transfer.sent} files, {transfer.skipped} were there")
    return str(folder)


def _fetch_files(store: Store, publication: Publication, folder: Path) -> None:
    """Fetch the record, its logs and the base model."""
    local = open_store(folder)
    if publication.entry("run.json") is None:
        raise TrainError(
            f"{store.root}: the index lists no run.json; expected a run of student-train; publish it again"
        )
    for file in publication.files:
        path = PurePosixPath(file.name)
        is_base = path.parts[0] == BASE_FOLDER and path.suffix in _BASE_SUFFIXES
        if (file.name in _LOGS or is_base) and not local.holds(file.name, size=file.bytes, sha256=file.sha256):
            store.download(file.name, folder / file.name, size=file.bytes, sha256=file.sha256)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch into a folder; the ranks of a run fetch the same one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

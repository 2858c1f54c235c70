"""The index of a published run, `publication.json`: its files, its caches, and how far a repeated run may lie.

The index is written last, so its presence means that the run is complete there. It comes from strangers: names are
checked, and its own digest finds damage on the way.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shards.errors import IncompleteCacheError
from shards.format.manifest import FileEntry
from shards.format.schema import canonical_json
from shards.storage.store import Store
from student_train.errors import TrainError

PUBLICATION_NAME = "publication.json"
FORMAT = 1
BASE_FOLDER = "base"
"""Folder of the model that the student starts from, where nobody else has it."""
_MAX_BYTES = 16_000_000
"""Largest index that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCache:
    """A cache that a run was trained on."""

    url: str
    """Where it is: a path, a URL, or an address relative to that of the run, such as `../cache`."""
    manifest_sha256: str
    """Digest of its manifest, hex."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """What a published run consists of."""

    caches: tuple[PublishedCache, ...]
    """The caches, in the order of the run's record."""
    files: tuple[FileEntry, ...]
    """All files beside the index, in the order in which they were sent."""
    noise: dict[str, Any] | None = None
    """Measured distance of two runs, in place of the record's own statement; None where nobody measured it."""

    @property
    def has_base(self) -> bool:
        """Whether the model that the student starts from is among the files."""
        return any(file.name.startswith(f"{BASE_FOLDER}/") for file in self.files)

    @property
    def sha256(self) -> str:
        """Identity of the publication."""
        return hashlib.sha256(canonical_json(self._body())).hexdigest()

    def entry(self, name: str) -> FileEntry | None:
        """Return the entry of a file; None without one."""
        return next((file for file in self.files if file.name == name), None)

    def to_bytes(self) -> bytes:
        """Return the content of `publication.json`."""
        return (json.dumps({**self._body(), "sha256": self.sha256}, indent=1) + "\n").encode()

    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "caches": [asdict(cache) for cache in self.caches],
            "files": [asdict(file) for file in self.files],
            "noise": self.noise,
        }

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> Publication:
        """Return the index that `to_bytes` wrote.

        Args:
            raw: The file.
            where: Its name in messages.

        Raises:
            TrainError: It is damaged, of another version, or names a file outside its folder.
        """
        try:
            content = dict(json.loads(raw))
            if content["format"] != FORMAT:
                raise TrainError(
                    f"{where}: found format {content['format']}, expected {FORMAT}; use the version of teacherless "
                    "that wrote it"
                )
            publication = cls(
                caches=tuple(PublishedCache(**cache) for cache in content["caches"]),
                files=tuple(FileEntry(**file) for file in content["files"]),
                noise=content["noise"],
            )
            is_whole = publication.sha256 == content["sha256"] and _has_types(publication)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, TrainError):
                raise
            is_whole = False
        if not is_whole:
            raise TrainError(f"{where}: found a damaged index, expected that of a published run; publish the run again")
        for file in publication.files:
            if not _is_inside(file.name):
                raise TrainError(
                    f"{where}: found the file name {file.name!r}, expected one inside its folder; do not use this "
                    "publication"
                )
        return publication


def read_publication(store: Store) -> Publication:
    """Return the index of a published run. Over a network, a damaged one is read twice: the reply may be damaged.

    Raises:
        TrainError: There is none, or it is damaged.
        StoreError: The place cannot be reached.
    """
    where = f"{store.root}/{PUBLICATION_NAME}"
    for is_last in (store.is_local, True):
        try:
            return Publication.from_bytes(store.read(PUBLICATION_NAME, num_bytes=_MAX_BYTES), where=where)
        except IncompleteCacheError:
            raise TrainError(
                f"{store.root}: found no {PUBLICATION_NAME}, expected a run that 'student-train --publish' has sent "
                "completely, or the run.json of a finished run; check the address, or publish the run again"
            ) from None
        except TrainError:
            if is_last:
                raise
    raise AssertionError("unreachable")


def resolve(url: str, *, run: str) -> str:
    """Return the address of a cache, relative ones resolved against the address of the run.

    Args:
        url: Address as in `PublishedCache.url`.
        run: Address of the published run.

    Raises:
        TrainError: A relative address leaves the bucket or server of the run.
    """
    if "://" in url or Path(url).is_absolute():
        return url
    scheme, separator, place = run.rstrip("/").rpartition("://")
    joined = posixpath.normpath(posixpath.join(place, url))
    if separator and joined.split("/")[0] != place.split("/")[0]:
        raise TrainError(
            f"{run}: found the cache at {url}, which leaves {place.split('/')[0]}; expected an address in it"
        )
    return f"{scheme}{separator}{joined}"


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and str(path) == name


def _has_types(publication: Publication) -> bool:
    files = all(
        isinstance(file.name, str) and type(file.bytes) is int and file.bytes >= 0 and isinstance(file.sha256, str)
        for file in publication.files
    )
    caches = all(isinstance(cache.url, str) and isinstance(cache.manifest_sha256, str) for cache in publication.caches)
    noise = publication.noise
    is_noise = noise is None or (isinstance(noise, dict) and isinstance(noise.get("margins"), dict))
    return files and caches and is_noise and len({file.name for file in publication.files}) == len(publication.files)

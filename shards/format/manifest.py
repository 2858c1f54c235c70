"""The manifest of a cache: every shard and chunk with its digest, the teacher, and the settings of the dump.

The manifest is written last, so its presence means that the cache is complete. The digest of its content identifies
the cache, and checkpoints record it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from shards.errors import CorruptShardError, ShardError
from shards.format.schema import RESPONSES_VERSION, Layout, canonical_json, check_version

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "teacherless-shards"


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """The model that the records are from."""

    name: str
    """Short name or path, as the user gave it."""
    repo: str
    """Hub repository or package of the weights, "" for a local directory."""
    revision: str
    """Commit or version, "" if there is none."""
    weights_sha256: str
    """Digest of the packaged file, or of the sorted list of the weight files' digests."""
    licence: str
    """SPDX identifier or the licence's own name, "" if unknown."""
    restricts_outputs: bool
    """Whether the licence restricts training other models on the teacher's outputs."""
    vocab_size: int
    """Number of ids of the distribution, without the padding of the embedding matrix."""
    parameters: int
    """Number of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """The model that wrote the responses of a cache, and how it was sampled."""

    name: str
    """Short name or path, as the user gave it."""
    revision: str
    """Commit or version, "" if there is none."""
    weights_sha256: str
    """Digest of its weights, as that of `Teacher`."""
    tokenizer: str
    """Fingerprint of its tokenizer. If it is not that of the rows, the texts were tokenised again for the teacher."""
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """The tokenizer of the rows."""

    fingerprint: str
    """Digest of its rules, `shards.model_files.tokenizer.TokenizerRules.fingerprint`."""
    vocab_size: int
    """Number of ids that it can produce."""
    prefix_tokens: tuple[int, ...]
    """Ids at the beginning of every row, which are context and not text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkEntry:
    """The place, size and digest of a chunk."""

    offset: int
    """First byte of the chunk's Arrow message in its file."""
    length: int
    """Number of bytes of the message."""
    rows: int
    tokens: int
    sha256: str
    """Digest of the message, hex."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of the cache that is not a shard."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """A withdrawn document."""

    document: str
    """sha256 of the document's UTF-8 bytes, hex."""
    rows: int
    """Number of rows that the cache had of it."""
    tokens: int
    """Number of tokens that the cache had of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """The size, digests and chunks of a shard."""

    name: str
    bytes: int
    sha256: str
    rows: int
    tokens: int
    rows_sha256: str
    """Digest of the rows' digests in order. It depends on the content alone, not on the compression."""
    chunks: tuple[ChunkEntry, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ShardEntry:
        """Read the JSON form, in which a chunk is a list of its five fields."""
        chunks = tuple(
            ChunkEntry(offset=c[0], length=c[1], rows=c[2], tokens=c[3], sha256=c[4]) for c in data["chunks"]
        )
        return cls(**{**data, "chunks": chunks})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        chunks = [[c.offset, c.length, c.rows, c.tokens, c.sha256] for c in self.chunks]
        return {**asdict(self), "chunks": chunks}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content and the origin of a cache."""

    layout: Layout
    teacher: Teacher
    tokenizer: Tokenizer
    engine: dict[str, Any]
    """Name, version, dtype and parallelism of the engine, and the meaning of its log-probabilities."""
    corpus: dict[str, Any]
    """Source, filters with their counts, and digest of the documents."""
    settings: dict[str, Any]
    """Resolved settings of the dump: seed, sizes of windows and tasks."""
    code: dict[str, Any]
    """Versions of this package and of its dependencies."""
    files: tuple[FileEntry, ...]
    shards: tuple[ShardEntry, ...]
    report: dict[str, Any] = field(default_factory=dict)
    """Statistics of the records, from `shards.reports.statistics.measure`."""
    tombstones: tuple[Tombstone, ...] = ()
    """Withdrawn documents, in the order of the list that named them."""
    writer: Writer | None = None
    """The model that wrote the responses; None if the corpus has them, or the rows are documents."""
    history: tuple[dict[str, Any], ...] = ()
    """Steps that made this cache from others: `step`, and in `from` the digests of their manifests."""

    def __post_init__(self) -> None:
        if self.writer is not None and not self.layout.has_responses:
            raise ShardError(f"writer: found {self.writer.name} in a cache of documents, expected none")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperatures of the columns of `Chunk.log_z`."""
        return self.layout.temperatures

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(s.rows for s in self.shards)

    @property
    def tokens(self) -> int:
        """Number of tokens, including prefix tokens."""
        return sum(s.tokens for s in self.shards)

    @property
    def rows_sha256(self) -> str:
        """Digest of the content of all rows in order. It does not depend on the run or the worker."""
        return hashlib.sha256("".join(s.rows_sha256 for s in self.shards).encode("ascii")).hexdigest()

    def body(self) -> dict[str, Any]:
        """Return the JSON form without its digest."""
        return {
            "format": FORMAT_NAME,
            "version": self.layout.version,
            "layout": self.layout.to_dict(),
            "teacher": asdict(self.teacher),
            "tokenizer": {**asdict(self.tokenizer), "prefix_tokens": list(self.tokenizer.prefix_tokens)},
            "engine": self.engine,
            "corpus": self.corpus,
            **({"writer": asdict(self.writer) if self.writer else None} if self.layout.has_responses else {}),
            "settings": self.settings,
            "code": self.code,
            "report": self.report,
            "totals": {"rows": self.rows, "tokens": self.tokens, "rows_sha256": self.rows_sha256},
            "files": [asdict(f) for f in self.files],
            "shards": [s.to_dict() for s in self.shards],
            # Omitted if empty: a cache that teacher-dump wrote has neither.
            **({"tombstones": [asdict(t) for t in self.tombstones]} if self.tombstones else {}),
            **({"history": list(self.history)} if self.history else {}),
        }

    @property
    def sha256(self) -> str:
        """Identity of the cache: sha256 of the canonical JSON of the body, hex."""
        return hashlib.sha256(canonical_json(self.body())).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the content of manifest.json: the body and its digest."""
        return json.dumps({"sha256": self.sha256, **self.body()}, indent=1).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> Manifest:
        """Read manifest.json.

        Args:
            raw: Content of the file.
            where: Name of the file in error messages.

        Raises:
            FormatVersionError: If the version is not supported.
            CorruptShardError: If the content has another digest than it says.
            ShardError: If it is no manifest.
        """
        data = _checked_body(raw, where)
        version = data["version"]
        try:
            for entry in [*data["files"], *data["shards"]]:
                _require_inside(entry["name"], where)
            tokenizer = {**data["tokenizer"], "prefix_tokens": tuple(data["tokenizer"]["prefix_tokens"])}
            return cls(
                layout=Layout.from_dict(data["layout"], version=version),
                teacher=Teacher(**data["teacher"]),
                tokenizer=Tokenizer(**tokenizer),
                engine=data["engine"],
                corpus=data["corpus"],
                writer=_writer_of(data),
                settings=data["settings"],
                code=data["code"],
                report=data["report"],
                files=tuple(FileEntry(**f) for f in data["files"]),
                shards=tuple(ShardEntry.from_dict(s) for s in data["shards"]),
                tombstones=tuple(Tombstone(**t) for t in data.get("tombstones", ())),
                history=tuple(data.get("history", ())),
            )
        except ShardError:
            raise
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise ShardError(f"{where}: {error!r}; expected the fields of version {version}") from None


def _writer_of(data: dict[str, Any]) -> Writer | None:
    if data["version"] != RESPONSES_VERSION:
        return None
    return None if data["writer"] is None else Writer(**data["writer"])


def _checked_body(raw: bytes, where: str) -> dict[str, Any]:
    """Return the body of a manifest after checking its format, version and digest."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptShardError(f"{where}: found no JSON ({error}); fetch or dump the cache again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT_NAME:
        raise ShardError(f'{where}: found a JSON file without "format": "{FORMAT_NAME}"; expected a manifest')
    check_version(data.get("version"), where=where)
    stated = data.pop("sha256", None)
    try:
        digest = hashlib.sha256(canonical_json(data)).hexdigest()
    except ValueError as error:  # NaN and infinity are not JSON
        raise CorruptShardError(f"{where}: found a number that is none ({error}); fetch the cache again") from None
    if stated != digest:
        raise CorruptShardError(
            f"{where}: content hashes to {digest[:12]}, the manifest says {str(stated)[:12]}; "
            "it was damaged or edited, fetch it again"
        )
    return data


def _require_inside(name: str, where: str) -> None:
    """Raise ShardError if a file name leaves the directory of the cache."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name:
        raise ShardError(f"{where}: found the file name {name!r}, expected one inside the cache")

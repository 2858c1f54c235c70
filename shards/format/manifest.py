"""What is in the cache? Every shard and chunk with its digest, and who the teacher was.

The manifest is written last, so its presence means that the cache is complete. The digest of its content is the
identity of the cache: checkpoints record it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from shards.errors import CorruptShardError, ShardError
from shards.format.schema import FORMAT_VERSION, Layout, canonical_json, check_version

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "teacherless-shards"


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """Who answered?"""

    name: str
    """Short name or path that the user gave."""
    repo: str
    """Hub repository, or package that the weights come from; "" for a local folder."""
    revision: str
    """Commit or version; "" where there is none."""
    weights_sha256: str
    """Digest of the weights: of the packaged file, or of the sorted list of the weight files' digests."""
    licence: str
    """SPDX identifier or the licence's own name; "" where it is not known."""
    restricts_outputs: bool
    """Whether the licence restricts training other models on what the teacher says."""
    vocab_size: int
    """Ids of the distribution; padding of the embedding matrix not counted."""
    parameters: int
    """Number of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """Which ids stand for which text?"""

    fingerprint: str
    """Digest of vocabulary, merges and rules (`TokenizerRules.fingerprint`)."""
    vocab_size: int
    """Ids that the tokenizer can produce."""
    prefix_tokens: tuple[int, ...]
    """Ids at the head of every row: context, not text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkEntry:
    """Where does a chunk lie, and what must it hash to?"""

    offset: int
    """First byte of the chunk's Arrow message in its file."""
    length: int
    """Bytes of the message."""
    rows: int
    tokens: int
    sha256: str
    """Digest of the message's bytes, hex."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file of the cache other than a shard."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """A document that was withdrawn."""

    document: str
    """sha256 of the document's UTF-8 bytes, hex."""
    rows: int
    tokens: int
    """How much of it was in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One shard: a file name, digests, and its chunks."""

    name: str
    bytes: int
    sha256: str
    rows: int
    tokens: int
    rows_sha256: str
    """Digest over the digests of the rows, in order: the content, whatever the compression."""
    chunks: tuple[ChunkEntry, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ShardEntry:
        """Read the JSON form, in which a chunk is the list of its five fields."""
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
    """What a cache holds and where it comes from."""

    layout: Layout
    teacher: Teacher
    tokenizer: Tokenizer
    engine: dict[str, Any]
    """Name, version, dtype, parallelism, and what its log-probs mean."""
    corpus: dict[str, Any]
    """Source, filters with their counts, fingerprint of the documents."""
    settings: dict[str, Any]
    """Resolved settings of the dump: seed, window and task sizes."""
    code: dict[str, Any]
    """Version of this code and of what it ran on."""
    files: tuple[FileEntry, ...]
    shards: tuple[ShardEntry, ...]
    report: dict[str, Any] = field(default_factory=dict)
    """Measured facts about the records (mass captured and so on)."""
    tombstones: tuple[Tombstone, ...] = ()
    """Documents that were withdrawn, in the order in which they were listed."""
    history: tuple[dict[str, Any], ...] = ()
    """How this cache was made of others: `step`, and in `from` their manifests' digests."""

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
        """Number of tokens, prefix tokens included."""
        return sum(s.tokens for s in self.shards)

    @property
    def rows_sha256(self) -> str:
        """Digest of all rows' content in the cache's order, whatever run or worker wrote them."""
        return hashlib.sha256("".join(s.rows_sha256 for s in self.shards).encode("ascii")).hexdigest()

    def body(self) -> dict[str, Any]:
        """Return the JSON form without its digest."""
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "layout": self.layout.to_dict(),
            "teacher": asdict(self.teacher),
            "tokenizer": {**asdict(self.tokenizer), "prefix_tokens": list(self.tokenizer.prefix_tokens)},
            "engine": self.engine,
            "corpus": self.corpus,
            "settings": self.settings,
            "code": self.code,
            "report": self.report,
            "totals": {"rows": self.rows, "tokens": self.tokens, "rows_sha256": self.rows_sha256},
            "files": [asdict(f) for f in self.files],
            "shards": [s.to_dict() for s in self.shards],
            # Not there where empty: a cache as the teacher wrote it has neither.
            **({"tombstones": [asdict(t) for t in self.tombstones]} if self.tombstones else {}),
            **({"history": list(self.history)} if self.history else {}),
        }

    @property
    def sha256(self) -> str:
        """Identity of the cache: sha256 of the body's canonical JSON."""
        return hashlib.sha256(canonical_json(self.body())).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the content of manifest.json: the body and, beside it, its digest."""
        return json.dumps({"sha256": self.sha256, **self.body()}, indent=1).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> Manifest:
        """Read manifest.json.

        Raises FormatVersionError on another version, CorruptShardError where the content does not hash to the
        digest that stands beside it, ShardError where it is no manifest.
        """
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise CorruptShardError(f"{where}: found no JSON ({error}); fetch or dump the cache again") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT_NAME:
            raise ShardError(f'{where}: found a JSON file without "format": "{FORMAT_NAME}"; expected a manifest')
        check_version(data.get("version"), where=where)
        promised = data.pop("sha256", None)
        try:
            found = hashlib.sha256(canonical_json(data)).hexdigest()
        except ValueError as error:  # NaN or infinity, which JSON has no word for
            raise CorruptShardError(f"{where}: found a number that is none ({error}); fetch the cache again") from None
        if promised != found:
            raise CorruptShardError(
                f"{where}: content hashes to {found[:12]}, the manifest says {str(promised)[:12]}; "
                "it was damaged or edited, fetch it again"
            )
        try:
            for name in [e["name"] for e in [*data["files"], *data["shards"]]]:
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name:
                    raise ShardError(f"{where}: found the file name {name!r}, expected one inside the cache")
            tokenizer = {**data["tokenizer"], "prefix_tokens": tuple(data["tokenizer"]["prefix_tokens"])}
            return cls(
                layout=Layout.from_dict(data["layout"]),
                teacher=Teacher(**data["teacher"]),
                tokenizer=Tokenizer(**tokenizer),
                engine=data["engine"],
                corpus=data["corpus"],
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
            raise ShardError(f"{where}: {error!r}; expected the fields of version {FORMAT_VERSION}") from None

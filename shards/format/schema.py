"""The Arrow schema of a shard, and the constants that give its codes a meaning.

A `Layout` holds everything that a reader needs beside the data. It is stored in the manifest and, as JSON, in the
metadata of every shard. docs/format.md is the normative text; this package implements it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from shards.errors import FormatVersionError, ShardError
from shards.format.relations import RelationLayout

DOCUMENTS_VERSION = 1
"""Format version of caches whose rows are windows of documents."""
RESPONSES_VERSION = 2
"""Format version of caches whose rows are conversations: columns `context` and `messages`, and a writer."""
FORMAT_VERSIONS = (DOCUMENTS_VERSION, RESPONSES_VERSION)
"""Versions that are read. A version is added only with its golden file, and none is removed."""

METADATA_KEY = b"teacherless"
"""Key of the JSON in the schema metadata of an Arrow file."""

UNIT = 2**24
"""Probabilities are integers in units of 2^-24, so each one, and each sum of them up to 1, is an exact float32."""

TAIL_STEP = math.pi / 510
"""Distance of neighbouring tail and whitespace codes in asin(sqrt(p)): 256 codes cover [0, 1]."""
HEAD_STEP = math.pi / 1020
"""Distance of neighbouring head codes in asin(sqrt(p)): 256 codes cover [0, 1/2]."""
LOG_Z_ZERO = 32768
"""Code of log Z_T = 0. The values are negative for T < 1."""
MAX_CODE = 65535
"""Largest code of two bytes: of the label's log-probability, and of log Z_T."""

ABSENT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "draws": ("draw_surplus", "draw_gaps_0", "draw_gaps_1", "draw_gaps_2"),
    "entropy": ("entropy_codes",),
    "realised": ("realised_codes",),
    "tail": (),
    "whitespace": ("whitespace_codes",),
}
"""For each part of the records that a cache may lack, the columns whose lists are then empty.

A tail that is absent has `tail_codes` of zero: the probabilities are those among the ids of the head.
"""

MAX_VOCAB = 2**24
MAX_ENTRIES = 255
"""Maximum number of head ids, and of draws, of a position: counts are one byte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The parameters that turn codes into numbers."""

    vocab_size: int
    """Upper bound of the ids. It determines the width of the id columns."""
    temperatures: tuple[float, ...]
    """Temperatures of the columns of `log_z_codes`, in order."""
    threshold: float
    """c: the expected number of draws of a position is ceil(tail / c)."""
    tail_floor: float
    """Tail mass below which the expected number of draws is 0."""
    log_z_step: float = 1 / 256
    """Nats per unit of a log Z code."""
    realised_step: float = 1 / 256
    """Nats per unit of a code of the label's log-probability."""
    entropy_max: float = 16.0
    """Entropy of code 255, in nats. Codes are spaced evenly in the square root."""
    tokens: str = "kept"
    """"kept", or "removed" if the lists of tokens are empty."""
    absent: tuple[str, ...] = ()
    """Parts of the records that are not stored, keys of `ABSENT_COLUMNS` in order; a key of the JSON form if not ()."""
    version: int = DOCUMENTS_VERSION
    """Format version, which decides the columns. The JSON form is without it: manifest and shards name it beside."""
    relations: RelationLayout | None = None
    """The optional columns of relations; None without them. The JSON form then lacks the key."""

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size <= MAX_VOCAB:
            raise ShardError(f"vocab_size: found {self.vocab_size}, expected 1 to {MAX_VOCAB}")
        for name in ("threshold", "tail_floor", "log_z_step", "realised_step", "entropy_max"):
            if not getattr(self, name) > 0:
                raise ShardError(f"{name}: found {getattr(self, name)}, expected a positive number")
        if self.tokens not in ("kept", "removed"):
            raise ShardError(f"tokens: found {self.tokens!r}, expected 'kept' or 'removed'")
        if self.version not in FORMAT_VERSIONS:
            raise ShardError(f"version: found {self.version!r}, expected one of {FORMAT_VERSIONS}")
        if self.absent != tuple(name for name in ABSENT_COLUMNS if name in self.absent):
            raise ShardError(f"absent: found {self.absent}, expected some of {tuple(ABSENT_COLUMNS)}, in that order")

    @property
    def has_tokens(self) -> bool:
        """Whether rows contain their tokens."""
        return self.tokens == "kept"

    @property
    def has_responses(self) -> bool:
        """Whether rows have a context and messages."""
        return self.version == RESPONSES_VERSION

    @property
    def absent_columns(self) -> frozenset[str]:
        """Names of the columns whose lists are empty because the cache lacks that part of the records."""
        return frozenset(column for name in self.absent for column in ABSENT_COLUMNS[name])

    @property
    def id_bytes(self) -> int:
        """Bytes per id: 2 or 3."""
        return 2 if self.vocab_size <= 2**16 else 3

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: `tokens` only if they were removed, `absent` only if a part is, never `version`."""
        data = {**asdict(self), "temperatures": list(self.temperatures), "absent": list(self.absent)}
        del data["version"]
        if self.tokens == "kept":
            del data["tokens"]
        if not self.absent:
            del data["absent"]
        del data["relations"]
        return data if self.relations is None else {**data, "relations": self.relations.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, version: int) -> Layout:
        """Read the JSON form.

        Args:
            data: The JSON form.
            version: Format version of the manifest or shard that holds it.

        Raises:
            ShardError: If a field is missing, unknown or out of range.
        """
        try:
            relations = {"relations": RelationLayout.from_dict(data["relations"])} if "relations" in data else {}
            tuples = {"temperatures": tuple(data["temperatures"]), "absent": tuple(data.get("absent", ()))}
            return cls(**{**data, **tuples, **relations}, version=version)
        except (TypeError, KeyError) as error:
            raise ShardError(f"layout: {error}; expected the fields of format version {version}") from None


def schema(layout: Layout) -> pa.Schema:
    """Return the Arrow schema of a shard with this layout, without metadata."""
    ids = pa.uint16() if layout.id_bytes == 2 else pa.uint32()
    u8, u16 = pa.uint8(), pa.uint16()
    has_relations = layout.relations is not None

    def column(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, kind, nullable=False)

    def stream(name: str, kind: pa.DataType) -> pa.Field:
        return column(name, pa.list_(pa.field("item", kind, nullable=False)))

    return pa.schema(
        [
            column("document", pa.binary()),
            column("window", pa.uint32()),
            column("byte_start", pa.uint64()),
            column("byte_end", pa.uint64()),
            column("source", pa.string()),
            column("path", pa.string()),
            column("licence", pa.string()),
            *([column("context", pa.uint32()), column("messages", pa.string())] if layout.has_responses else []),
            stream("tokens", ids),
            stream("head_count", u8),
            stream("head_ids", ids),
            stream("head_codes", u8),
            stream("tail_codes", u8),
            stream("draw_surplus", u8),
            *(stream(f"draw_gaps_{plane}", u8) for plane in range(layout.id_bytes)),
            stream("realised_codes", u16),
            stream("whitespace_codes", u8),
            stream("entropy_codes", u8),
            *(stream(f"log_z_codes_{z}", u16) for z in range(len(layout.temperatures))),
            *([stream("relation_codes", pa.int8()), stream("relation_scales", u8)] if has_relations else []),
            column("row_sha256", pa.binary()),
        ]
    )


def list_names(schema: pa.Schema) -> list[str]:
    """Return the names of the list columns of a schema, in order."""
    return [field.name for field in schema if pa.types.is_list(field.type)]


def file_schema(layout: Layout, *, task: str, fingerprint: str) -> pa.Schema:
    """Return the schema of a shard, with metadata that allows reading it without its manifest.

    Args:
        layout: Parameters of the codes.
        task: Name of the task that writes the shard.
        fingerprint: Digest of the inputs of the dump.
    """
    metadata = {"version": layout.version, "task": task, "fingerprint": fingerprint, "layout": layout.to_dict()}
    return schema(layout).with_metadata({METADATA_KEY: canonical_json(metadata)})


def read_file_metadata(schema: pa.Schema, *, where: str) -> dict[str, Any]:
    """Return the JSON in the metadata of a shard: version, task, fingerprint and layout.

    Args:
        schema: Schema of the Arrow file.
        where: Name of the file in error messages.

    Raises:
        FormatVersionError: If the version is not supported.
        ShardError: If there is no metadata, or it is damaged.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise ShardError(f"{where}: found an Arrow file without teacherless metadata; expected a shard")
    try:
        metadata: dict[str, Any] = json.loads(raw)
        version = metadata["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ShardError(f"{where}: the metadata of the file is damaged; fetch or dump that shard again") from None
    check_version(version, where=where)
    return metadata


def check_version(version: object, *, where: str) -> None:
    """Raise FormatVersionError if a format version is not supported."""
    if type(version) is not int or version not in FORMAT_VERSIONS:
        is_newer = isinstance(version, int) and version > max(FORMAT_VERSIONS)
        remedy = "upgrade teacherless" if is_newer else "the file is damaged or no shard, fetch it again"
        known = " or ".join(map(str, FORMAT_VERSIONS))
        raise FormatVersionError(f"{where}: found format version {version}, expected {known}; {remedy}")


def canonical_json(value: object) -> bytes:
    """Return the JSON text that digests are taken of: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

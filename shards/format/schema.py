"""What is a row? The Arrow schema of format version 1, and the constants that give its codes a meaning.

Everything a reader must know beside the data is a `Layout`: it stands in the manifest and, as JSON, in the
metadata of every file. docs/format.md is the normative text; this module is its implementation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from shards.errors import FormatVersionError, ShardError

FORMAT_VERSION = 1
"""Moves only with a golden file of the new version and a reader for the old one."""

METADATA_KEY = b"teacherless"
"""Key of the JSON in an Arrow file's schema metadata."""

UNIT = 2**24
"""Probabilities are integers in units of 2^-24: each is an exact float32, and so is every sum up to one."""

MAX_VOCAB = 2**24
MAX_ENTRIES = 255
"""Most head ids, and most draws, of one position (counts are one byte)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What turns codes into numbers."""

    vocab_size: int
    """Ids are below this; it decides the width of the id columns."""
    temperatures: tuple[float, ...]
    """Temperatures of the columns of `log_z_codes`, in order."""
    threshold: float
    """c: expected number of draws of a position is ceil(tail / c)."""
    tail_floor: float
    """Tail mass below which a position is expected to have no draws."""
    log_z_step: float = 1 / 256
    """Nats per unit of a log_z code."""
    realised_step: float = 1 / 256
    """Nats per unit of a realised code."""
    entropy_max: float = 16.0
    """Entropy, in nats, of code 255; codes are spaced by the square root."""
    tokens: str = "kept"
    """"kept", or "removed" where the lists of tokens are empty until the user's own text fills them again."""

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size <= MAX_VOCAB:
            raise ShardError(f"vocab_size: found {self.vocab_size}, expected 1 to {MAX_VOCAB}")
        for name in ("threshold", "tail_floor", "log_z_step", "realised_step", "entropy_max"):
            if not getattr(self, name) > 0:
                raise ShardError(f"{name}: found {getattr(self, name)}, expected a positive number")
        if self.tokens not in ("kept", "removed"):
            raise ShardError(f"tokens: found {self.tokens!r}, expected 'kept' or 'removed'")

    @property
    def id_bytes(self) -> int:
        """Bytes that an id needs: 2 or 3."""
        return 2 if self.vocab_size <= 2**16 else 3

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form. `tokens` is in it only where they were removed."""
        data = {**asdict(self), "temperatures": list(self.temperatures)}
        if self.tokens == "kept":
            del data["tokens"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        """Read the JSON form. Raises ShardError naming what does not fit."""
        try:
            return cls(**{**data, "temperatures": tuple(data["temperatures"])})
        except (TypeError, KeyError) as error:
            raise ShardError(f"layout: {error}; expected the fields of format version {FORMAT_VERSION}") from None


def schema(layout: Layout) -> pa.Schema:
    """Return the Arrow schema of a file with this layout, metadata not included."""
    ids = pa.uint16() if layout.id_bytes == 2 else pa.uint32()
    u8, u16 = pa.uint8(), pa.uint16()

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
            column("row_sha256", pa.binary()),
        ]
    )


def file_schema(layout: Layout, *, task: str, fingerprint: str) -> pa.Schema:
    """Return the schema of a file, with the metadata that lets it be read without its manifest."""
    about = {"version": FORMAT_VERSION, "task": task, "fingerprint": fingerprint, "layout": layout.to_dict()}
    return schema(layout).with_metadata({METADATA_KEY: canonical_json(about)})


def read_file_metadata(found: pa.Schema, *, where: str) -> dict[str, Any]:
    """Return the JSON in an Arrow file's metadata: version, task, fingerprint, layout.

    Raises FormatVersionError on a version that this code does not read, ShardError where there is none.
    """
    raw = (found.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise ShardError(f"{where}: found an Arrow file without teacherless metadata; expected a shard")
    try:
        about: dict[str, Any] = json.loads(raw)
        version = about["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ShardError(f"{where}: the metadata of the file is damaged; fetch or dump that shard again") from None
    check_version(version, where=where)
    return about


def check_version(version: object, *, where: str) -> None:
    """Raise FormatVersionError unless this code reads the version."""
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        remedy = "upgrade teacherless" if newer else "the file is not what it says, fetch it again"
        raise FormatVersionError(f"{where}: found format version {version}, expected {FORMAT_VERSION}; {remedy}")


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value that digests are taken over: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

"""The file check.json beside a cache: its header and its bytes."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from shards.format.side_files import seal_json
from shards.read import Cache
from teacher_dump.tasks.windowing import Window


def header(
    cache: Cache, windows: Sequence[Window], engine: dict[str, Any], *, numbers: Iterable[int] | None = None
) -> dict[str, Any]:
    """Return the fields that identify a result.

    Args:
        cache: The cache that was checked.
        windows: The rows that were scored again.
        engine: Description of the engine that scored them.
        numbers: Numbers of the rows in the cache.
    """
    return {
        "manifest_sha256": cache.manifest_sha256,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": len(windows),
        "of_rows": cache.rows,
        "positions": sum(len(window.labels) for window in windows),
        **({} if numbers is None else {"row_numbers": list(numbers)}),
        "engine": engine,
    }


def to_bytes(result: dict[str, Any]) -> bytes:
    """Return a result as the bytes of its file."""
    return seal_json(result)

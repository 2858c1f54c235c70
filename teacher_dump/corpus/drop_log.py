"""List of the dropped documents: one JSON object per line in dropped.jsonl, beside the cache.

    {"source": "a/b", "path": "x.py", "sha256": "9f..", "filter": "near duplicate", "detail": "of 3c.., Jaccard 0.93"}

The list holds no text. It is a function of the corpus and the filters, so its digest is part of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from shards.format.manifest import FileEntry
from shards.storage.atomic import write_atomic
from teacher_dump.corpus.document import Document, Drop

DROP_LOG_NAME = "dropped.jsonl"
_MEMORY_BYTES = 16_000_000


class DropLog:
    """The list while it grows: in memory, and in a scratch file above 16 MB."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - lives as long as the list

    def clear(self) -> None:
        """Remove all lines."""
        self._file.seek(0)
        self._file.truncate()

    def add(self, document: Document, drop: Drop) -> None:
        """Append a dropped document."""
        line = {
            "source": document.source,
            "path": document.path,
            "sha256": document.sha256,
            "filter": drop.reason,
            "detail": drop.detail,
        }
        self._file.write(json.dumps(line).encode() + b"\n")

    def save(self, folder: Path) -> FileEntry:
        """Write the list to dropped.jsonl in a folder, atomically.

        A file with the same content, from an earlier run or another worker, is left in place.

        Returns:
            The file's entry for the manifest.
        """
        self._file.seek(0)
        raw = self._file.read()
        path = folder / DROP_LOG_NAME
        if not path.exists() or path.read_bytes() != raw:
            write_atomic(path, raw)
        return FileEntry(name=DROP_LOG_NAME, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())

"""What was dropped, and why? One JSON object a line, beside the cache.

    {"source": "a/b", "path": "x.py", "sha256": "9f..", "filter": "near duplicate", "detail": "of 3c.., Jaccard 0.93"}

It holds no text. The list is a function of the corpus and the filters, so its digest is in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from typing import TYPE_CHECKING

from shards.format.manifest import FileEntry

if TYPE_CHECKING:
    from pathlib import Path

    from teacher_dump.corpus.document import Document

NAME = "dropped.jsonl"
_MEMORY = 16_000_000


class Dropped:
    """The list while it grows: in memory, and in a scratch file where it is long."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY)  # noqa: SIM115 - lives as long as the list
        self.count = 0

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self.count = 0

    def add(self, document: Document, why: str, detail: str = "") -> None:
        """Note a document that was dropped by the filter `why`."""
        line = {
            "source": document.source,
            "path": document.path,
            "sha256": document.sha256,
            "filter": why,
            "detail": detail,
        }
        self._file.write(json.dumps(line).encode() + b"\n")
        self.count += 1

    def save(self, folder: Path) -> FileEntry:
        """Write the list to dropped.jsonl in a folder, whole or not at all, and return its entry for the manifest.

        A list that is there already, of a run before or of another worker, is left as it is.
        """
        from shards.storage.atomic import write_atomic

        self._file.seek(0)
        raw = self._file.read()
        path = folder / NAME
        if not path.exists() or path.read_bytes() != raw:
            write_atomic(path, raw)
        return FileEntry(name=NAME, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())

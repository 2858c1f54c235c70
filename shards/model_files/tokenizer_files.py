"""Copy a tokenizer's files into a cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from shards.format.manifest import FileEntry
from shards.read import TOKENIZER_FOLDER
from shards.storage.atomic import write_atomic

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Names of the files that are copied, where they exist."""


def write_tokenizer(folder: Path, out: Path) -> tuple[FileEntry, ...]:
    """Copy the tokenizer's files into a cache, and return their entries for the manifest.

    Args:
        folder: Folder of the tokenizer.
        out: Folder of the cache.

    Raises:
        StoreError: If a file cannot be written.
    """
    entries = []
    for name in TOKENIZER_FILES:
        if (source := folder / name).exists():
            target, content = f"{TOKENIZER_FOLDER}/{name}", strip_paths(source.read_bytes())
            write_atomic(out / target, content)
            entries.append(FileEntry(name=target, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    return tuple(entries)


def strip_paths(content: bytes) -> bytes:
    """Return a tokenizer file without the absolute paths that some releases of transformers store in it."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(config, dict):
        return content
    kept = {key: value for key, value in config.items() if not _is_path(key, value)}
    return content if kept == config else json.dumps(kept, indent=2, ensure_ascii=False).encode() + b"\n"


def _is_path(key: str, value: Any) -> bool:
    names_path = key in ("name_or_path", "_name_or_path") or key.endswith(("_file", "_dir", "_path"))
    return names_path and isinstance(value, str) and (value.startswith("~") or PurePath(value).is_absolute())

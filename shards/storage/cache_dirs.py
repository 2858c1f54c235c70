"""Per-user cache directories for unpacked teachers, downloaded chunks and file digests.

The root is $TEACHERLESS_CACHE, or `teacherless/` under $XDG_CACHE_HOME or ~/.cache. Everything below it can be
fetched or computed again.
"""

from __future__ import annotations

import os
from pathlib import Path

from shards.errors import StoreError


def cache_dir() -> Path:
    """Return the root of the user's cache. It need not exist.

    Raises:
        StoreError: If a path begins with `~` and there is no such home directory.
    """
    explicit = os.environ.get("TEACHERLESS_CACHE")
    named = explicit or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        expanded = Path(named).expanduser()
    except RuntimeError:
        raise StoreError(
            f"{named}: found no such home directory; set TEACHERLESS_CACHE to a directory that you can write to"
        ) from None
    return expanded if explicit else expanded / "teacherless"


def model_dir(name: str, weights_sha256: str) -> Path:
    """Return the directory for the unpacked weights of a packaged teacher. It need not exist.

    Args:
        name: Name of the teacher.
        weights_sha256: Digest of the packaged file. It is part of the directory's name, so releases are kept apart.
    """
    return cache_dir() / "models" / f"{name}-{weights_sha256[:12]}"

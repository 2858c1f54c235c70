"""Where do things lie that can be had again: unpacked teachers and downloaded chunks?

One folder per user: $TEACHERLESS_CACHE, or teacherless/ under $XDG_CACHE_HOME or ~/.cache. Deleting it loses
time, never data.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for things that can be had again. It need not exist yet."""
    if named := os.environ.get("TEACHERLESS_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "teacherless"


def model_dir(name: str, weights_sha256: str) -> Path:
    """Return where the unpacked weights of a packaged teacher lie, or would lie.

    The digest of the packaged file is part of the name, so another release never passes for this one.
    """
    return cache_dir() / "models" / f"{name}-{weights_sha256[:12]}"

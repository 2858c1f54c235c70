"""Per-user cache directories of verdicts, expected values and downloaded benchmark files."""

from __future__ import annotations

import os
from pathlib import Path

from evalkit.errors import EvalError


def cache_dir(name: str = "") -> Path:
    """Return the user's cache directory: `$XDG_CACHE_HOME` or `~/.cache`, then `teacherless/evalkit`.

    Args:
        name: Subdirectory; "" for the cache directory itself. Nothing is created.

    Raises:
        EvalError: The user has no home directory, as in a container that runs under a bare numeric id.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "teacherless" / "evalkit" / name
    except RuntimeError:
        raise EvalError(f"{base}: there is no such home folder; set XDG_CACHE_HOME to a folder of yours") from None

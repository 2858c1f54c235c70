"""Per-user cache directory of verdicts and EvalPlus data."""

from __future__ import annotations

import os
from pathlib import Path

from evalkit.errors import EvalError


def default_folder() -> Path:
    """Return the user's cache folder: $XDG_CACHE_HOME or ~/.cache, then teacherless/evalkit.

    Raises:
        EvalError: the user has no home, as in a container that runs under a number alone.
    """
    named = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(named).expanduser() / "teacherless" / "evalkit"
    except RuntimeError:
        raise EvalError(f"{named}: there is no such home folder; set XDG_CACHE_HOME to a folder of yours") from None

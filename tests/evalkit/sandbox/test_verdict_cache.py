"""The cache of verdicts: its keys, the outcomes that it stores, a disk that is full."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from evalkit.sandbox.verdict import Verdict
from evalkit.sandbox.verdict_cache import VerdictCache, job_key
from tests.evalkit.sandbox.jobs import job


def test_a_doubtful_verdict_is_not_remembered(tmp_path):
    cache = VerdictCache(tmp_path)
    cache.put("key", Verdict(outcome="timeout_wall"))
    assert cache.get("key") is None


def test_another_test_or_limit_is_another_key():
    keys = {job_key(job("p")), job_key(job("p", "assert True")), job_key(job("p", cpu_s=9.0)), job_key(job("q"))}
    assert len(keys) == 4


def test_a_full_disk_of_the_verdict_cache_is_told_and_loses_no_verdict(tmp_path: Path, monkeypatch):
    cache = VerdictCache(tmp_path)

    class Full:
        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None:
            pass

    monkeypatch.setattr(cache, "_database", Full())
    for number in range(5):
        cache.put(str(number), Verdict(outcome="pass"))
    assert cache.problem == f"{tmp_path}: database or disk is full"
    assert cache.get("0") is None

"""Tests of temporary names and of the removal of leftovers."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from shards.storage.temp_files import ABANDONED_S, remove_leftovers, remove_own, temp_path


def test_only_leftovers_of_the_dead_are_deleted(tmp_path: Path) -> None:
    host = re.sub("[^A-Za-z0-9]", "_", socket.gethostname())
    (tmp_path / "below").mkdir()
    dead = tmp_path / "below" / f".a.arrow.{host}-999999999-0.part"
    alive = tmp_path / f".a.arrow.{host}-{os.getppid()}-0.part"
    elsewhere = tmp_path / ".a.arrow.another-1-0.part"
    forgotten = tmp_path / ".b.arrow.another-1-0.part"
    for file in (dead, alive, elsewhere, forgotten):
        file.touch()
    long_ago = time.time() - 2 * ABANDONED_S
    os.utime(forgotten, (long_ago, long_ago))
    mine = temp_path(tmp_path / "c.arrow")
    mine.touch()
    remove_leftovers(tmp_path)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {alive, elsewhere, mine}
    remove_own(tmp_path)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {alive, elsewhere}

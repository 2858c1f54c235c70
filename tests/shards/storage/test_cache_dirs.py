"""Tests of the rule for per-user cache directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import StoreError
from shards.storage.cache_dirs import cache_dir, model_dir


def test_the_first_of_three_places_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TEACHERLESS_CACHE", raising=False)
    assert cache_dir() == tmp_path / "home" / ".cache" / "teacherless"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "teacherless"
    monkeypatch.setenv("TEACHERLESS_CACHE", "~/own")
    assert cache_dir() == tmp_path / "home" / "own"
    assert model_dir("tiny", "0123456789abcdef") == tmp_path / "home" / "own" / "models" / "tiny-0123456789ab"


@pytest.mark.parametrize("variable", ["TEACHERLESS_CACHE", "XDG_CACHE_HOME"])
def test_a_home_that_does_not_exist_is_one_line(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHERLESS_CACHE", raising=False)
    monkeypatch.setenv(variable, "~nobody-of-this-name/cache")
    with pytest.raises(StoreError, match=r"~nobody-of-this-name/cache: found no such home directory; set TEACHERLESS"):
        cache_dir()

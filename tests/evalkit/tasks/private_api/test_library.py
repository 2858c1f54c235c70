"""Tests of the renamed package: pinned sources, no leaks, examples that pass, the licence."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tasks.private_api import library
from evalkit.tasks.private_api.benchmark import PrivateApiBuild


@pytest.mark.slow
def test_no_telling_name_is_left_in_the_library(default_build: PrivateApiBuild) -> None:
    """Names with an underscore, and names of classes; a word such as `split` is also one of English."""
    renaming = library.plan_renaming(library.read_sources(), seed=default_build.seed)
    for path in default_build.package.glob("*.py"):
        words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", path.read_text()))
        assert {word for word in words if renaming.is_distinctive(word)} <= {"total_seconds"}, "timedelta has one"
        assert library.PACKAGE not in path.read_text().lower()


def test_the_licence_is_kept(default_build: PrivateApiBuild) -> None:
    assert "Redistribution and use in source and binary forms" in (default_build.folder / "LICENSE").read_text()


def test_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SOURCES_SHA256", "0" * 64)
    with pytest.raises(EvalError, match=r"is not that of boltons .*pip install boltons=="):
        library.read_sources()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGE", "no_such_package")
    with pytest.raises(EvalError, match="expected the package no_such_package"):
        library.read_sources()


@pytest.mark.slow
def test_a_library_that_no_longer_works_is_refused(tmp_path: Path) -> None:
    sources = library.read_sources()
    renaming = library.plan_renaming(sources, seed=1)
    broken = sources.modules["mathutils"].replace("return min(max(x, lower), upper)", "return x")
    assert broken != sources.modules["mathutils"]
    changed = dataclasses.replace(sources, modules={**sources.modules, "mathutils": broken})
    with pytest.raises(EvalError, match=r"the renamed library is broken: .* examples of mathutils fail"):
        library.write_library(tmp_path, changed, renaming)

"""Tests of `make release`: what it writes, and that it writes nothing when something is wrong.

No counterpart: tests scripts/release.py. Building is tested here without twine, and in test_install.py.
"""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest

from scripts import release
from scripts.release import ReleaseError, with_section, with_version

CONFIG = "[metadata]\nname = teacherless\nversion = 0.1.0\nlicense = Apache-2.0\n"
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n- One.\n\n## 0.1.0 (2025-01-01)\n\n- First.\n"
DATE = datetime.date(2026, 1, 2)


def test_the_version_is_replaced_and_nothing_else() -> None:
    assert with_version(CONFIG, "0.2.0") == CONFIG.replace("0.1.0", "0.2.0")
    assert with_version(CONFIG.replace("0.1.0", "0.9.0"), "0.10.0").count("0.10.0") == 1


@pytest.mark.parametrize("version", ["", "0.2", "v0.2.0", "0.02.0", "0.2.0rc1", "0.1.0", "0.0.9"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ReleaseError):
        with_version(CONFIG, version)


def test_unreleased_becomes_the_section_of_the_version() -> None:
    expected = CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n## 0.2.0 (2026-01-02)\n")
    assert with_section(CHANGELOG, "0.2.0", DATE) == expected
    first = CHANGELOG.partition("## 0.1.0")[0]
    assert with_section(first, "0.1.0", DATE).endswith("## 0.1.0 (2026-01-02)\n\n### Added\n- One.\n\n")


def test_a_release_without_changes_or_of_the_same_version_is_refused() -> None:
    released = with_section(CHANGELOG, "0.2.0", DATE)
    for text, version in ((released, "0.3.0"), (CHANGELOG, "0.1.0"), ("# Changelog\n", "0.2.0")):
        with pytest.raises(ReleaseError):
            with_section(text, version, DATE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "setup.cfg").write_text(CONFIG)
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_the_tree_changes_after_the_checks_only(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def build(tree: Path, out: Path) -> list[Path]:
        seen.update({name: (tree / name).read_text() for name in release.CHANGED})
        out.mkdir()
        (out / "teacherless-0.2.0.tar.gz").write_bytes(b"x")
        return [out / "teacherless-0.2.0.tar.gz"]

    def fail(tree: Path, out: Path) -> list[Path]:
        raise ReleaseError("twine check failed")

    monkeypatch.setattr(release, "build", fail)
    with pytest.raises(ReleaseError, match="twine"):
        release.release(checkout, "0.2.0", DATE)
    assert (checkout / "setup.cfg").read_text() == CONFIG
    assert (checkout / "CHANGELOG.md").read_text() == CHANGELOG
    assert not (checkout / "dist").exists()
    monkeypatch.setattr(release, "build", build)
    assert [f.name for f in release.release(checkout, "0.2.0", DATE)] == ["teacherless-0.2.0.tar.gz"]
    assert {name: (checkout / name).read_text() for name in release.CHANGED} == seen
    assert "version = 0.2.0" in seen["setup.cfg"]
    with pytest.raises(ReleaseError, match="changes that are not committed"):
        release.release(checkout, "0.3.0", DATE)

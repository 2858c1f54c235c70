"""Build and check a release, then write its version and its section of the changelog: `make release VERSION=X.Y.Z`.

Everything is built in a copy of the tracked files. The tree changes only after all checks passed: setup.cfg gets the
version, CHANGELOG.md gets its section, and dist/ gets wheel and sdist. A person commits, tags and uploads.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGED = ("setup.cfg", "CHANGELOG.md")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_VERSION_LINE = re.compile(r"^version = (.*)$", re.MULTILINE)
_UNRELEASED = re.compile(r"^## Unreleased\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class ReleaseError(Exception):
    """A release that must not be made; the text says why."""


def with_version(config: str, version: str) -> str:
    """Return setup.cfg with another version.

    Args:
        config: Text of setup.cfg.
        version: The version, later than the one in the file.

    Raises:
        ReleaseError: If the version is none, or not a later one.
    """
    found = _VERSION_LINE.search(config)
    if found is None:
        raise ReleaseError("setup.cfg: found no line 'version = X.Y.Z'")
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"found the version {version!r}, expected X.Y.Z: make release VERSION=0.2.0")
    old = found[1]
    if [int(x) for x in version.split(".")] <= [int(x) for x in old.split(".")]:
        raise ReleaseError(f"found version {version}, expected one after {old}")
    return config[: found.start()] + f"version = {version}" + config[found.end() :]


def with_section(changelog: str, version: str, date: datetime.date) -> str:
    """Return the changelog with `Unreleased` as the section of a version, below a new, empty `Unreleased`.

    Raises:
        ReleaseError: If there is no such section, it is empty, or the version has a section already.
    """
    found = _UNRELEASED.search(changelog)
    if found is None or not re.search(r"^- ", found[1], re.MULTILINE):
        raise ReleaseError("CHANGELOG.md: found no entries under '## Unreleased', expected what changed")
    if re.search(rf"^## {re.escape(version)}\b", changelog, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md: found a section of {version} already")
    section = f"## Unreleased\n\n## {version} ({date.isoformat()})\n{found[1]}"
    return changelog[: found.start()] + section + changelog[found.end() :]


def build(tree: Path, out: Path) -> list[Path]:
    """Build an sdist, and a wheel from it, with the setuptools of this environment; check both.

    Args:
        tree: Folder with setup.cfg. setuptools writes into it.
        out: Folder of the files.

    Raises:
        ReleaseError: If a step fails. The text is its output.
    """
    out.mkdir(parents=True, exist_ok=True)
    sdist = out / _backend("sdist", tree, out)
    shutil.unpack_archive(sdist, tree.parent / "unpacked", filter="data")
    (unpacked,) = (tree.parent / "unpacked").iterdir()
    files = [sdist, out / _backend("wheel", unpacked, out)]
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files), cwd=out)
    return files


def _backend(kind: str, tree: Path, out: Path) -> str:
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    return _run(sys.executable, "-c", code, str(out), cwd=tree).splitlines()[-1]


def _run(*words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(words[:4])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def release(root: Path, version: str, date: datetime.date) -> list[Path]:
    """Make a release, and return the files in dist/.

    Args:
        root: The checkout.
        version: X.Y.Z.
        date: Date of the section in the changelog.

    Raises:
        ReleaseError: If the checkout has changes, or a step fails. Nothing is changed then.
    """
    if changes := _run("git", "status", "--porcelain", cwd=root).strip():
        raise ReleaseError(f"found changes that are not committed, expected none:\n{changes}")
    texts = {
        "setup.cfg": with_version((root / "setup.cfg").read_text(), version),
        "CHANGELOG.md": with_section((root / "CHANGELOG.md").read_text(), version, date),
    }
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        for name in filter(None, _run("git", "ls-files", "-z", cwd=root).split("\0")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)
        for name, text in texts.items():
            (tree / name).write_text(text)
        built = build(tree, Path(temporary) / "dist")
        (root / "dist").mkdir(exist_ok=True)
        files = [Path(shutil.copy2(file, root / "dist" / file.name)) for file in built]
    for name, text in texts.items():
        (root / name).write_text(text)
    return files


def main(version: str = "") -> None:
    """Make the release, and print how to publish it."""
    try:
        files = release(ROOT, version, datetime.datetime.now(datetime.UTC).date())
    except ReleaseError as error:
        raise SystemExit(f"release: {error}") from None
    for file in files:
        print(f"release: {file.relative_to(ROOT)}, {file.stat().st_size:,} bytes, passed twine check --strict")
    print(f"release: wrote {' and '.join(CHANGED)}; look at them (git diff), then:")
    print(f"    git commit -am 'Release {version}' && git tag -a v{version} -m v{version} && git push --follow-tags")
    print("    .venv/bin/python -m twine upload " + " ".join(str(f.relative_to(ROOT)) for f in files))


if __name__ == "__main__":
    main(*sys.argv[1:2])

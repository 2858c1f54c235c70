"""Packages for tests, written from their files, and what a build reads of them."""

from __future__ import annotations

from pathlib import Path

from evalkit.tools.docs.build import BuiltIndex, build_index
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex


class Notes:
    """Callbacks that keep the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, what: str, total: int) -> None:
        self.notes.append(f"{what}: {total}")

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        self.steps += steps

    def stop(self) -> None:
        pass


def write_package(folder: Path, **files: str | bytes) -> Path:
    """Write a package; `a__b` stands for `a/b.py`. Return its folder."""
    for name, content in {"__init__": "", **files}.items():
        path = folder / (name if name == "__init__" else name.replace("__", "/"))
        path = path.with_name(f"{path.name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def build(folder: Path, *, imports: bool = False) -> tuple[BuiltIndex, dict[str, DocsEntry]]:
    """Index a folder beside it; return what was built, and the entries by name."""
    out = folder.parent / "docs.db"
    built = build_index([str(folder)], out, Notes(), imports=imports)
    names = [name.entry.name for package in built.packages for name in package.names]
    with DocsIndex.open(out) as index:
        entries = {name: index.entry(name) for name in names}
    assert None not in entries.values()
    return built, {name: entry for name, entry in entries.items() if entry is not None}

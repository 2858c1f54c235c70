"""A small index for tests."""

from __future__ import annotations

from pathlib import Path

from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index_file import IndexedName, write_index

NAMES = (
    IndexedName(
        entry=DocsEntry(
            name="shapes.area",
            kind="function",
            signature="area(outline, *, unit='m')",
            summary="Return the surface of a polygon.",
            parameters=("outline: corners in order",),
            returns="a float",
            examples=">>> area([(0, 0), (1, 0), (0, 1)])\n0.5",
        ),
        paths=("shapes.area", "shapes.plane.area"),
        prose="Return the surface of a polygon.\n\nUses the shoelace formula.",
    ),
    IndexedName(
        entry=DocsEntry(name="shapes.Polygon", kind="class", signature="Polygon(corners)", summary="A closed outline."),
        paths=("shapes.Polygon",),
    ),
    IndexedName(
        entry=DocsEntry(name="shapes.Polygon.area_of_hull", kind="method", summary="Return the surface of the hull."),
        paths=("shapes.Polygon.area_of_hull",),
    ),
    IndexedName(
        entry=DocsEntry(name="shapes.io.readOutline", kind="function", summary="Load corners from a text file."),
        paths=("shapes.io.readOutline",),
    ),
)
PACKAGES = [{"name": "shapes", "version": "1.2"}]


def write_toy_index(folder: Path) -> Path:
    """Write the index of `NAMES`; return its path."""
    path = folder / "docs.db"
    write_index(path, NAMES, packages=PACKAGES)
    return path

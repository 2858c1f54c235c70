"""Hits of a search and their order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evalkit.tools.docs.index import DocsIndex
from tests.evalkit.tools.docs.toy_index import NAMES, PACKAGES, write_toy_index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[DocsIndex]:
    with DocsIndex.open(write_toy_index(tmp_path)) as opened:
        yield opened


def names(index: DocsIndex, query: str, limit: int = 10) -> list[str]:
    """Return the names of the hits."""
    return [entry.name for entry in index.search(query, limit)]


def test_an_entry_returns_as_it_was_written(index: DocsIndex) -> None:
    assert index.search("shapes.area", 1) == [NAMES[0].entry]
    assert list(index.packages) == PACKAGES


@pytest.mark.parametrize("query", ["area", "shapes.area", "AREA", "area()", "plane.area", "please call area(x) here"])
def test_an_exact_name_comes_first(index: DocsIndex, query: str) -> None:
    assert names(index, query)[0] == "shapes.area"


def test_a_part_of_a_name_comes_before_words(index: DocsIndex) -> None:
    assert names(index, "poly")[:2] == ["shapes.Polygon", "shapes.Polygon.area_of_hull"]
    assert names(index, "area")[:2] == ["shapes.area", "shapes.Polygon.area_of_hull"]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("load the corners of a file", "shapes.io.readOutline"),
        ("shoelace formula", "shapes.area"),
        ("reading an outline", "shapes.io.readOutline"),
        ("surface of hulls", "shapes.Polygon.area_of_hull"),
    ],
)
def test_words_find_entries(index: DocsIndex, query: str, first: str) -> None:
    assert names(index, query)[0] == first


@pytest.mark.parametrize(
    "query", ["", "   ", "\0", '" OR *', "!!", "NEAR(", "zzz", "' ; DROP TABLE entries", "a" * 10**6]
)
def test_any_query_is_safe(index: DocsIndex, query: str) -> None:
    assert set(names(index, query)) <= {name.entry.name for name in NAMES}
    assert len(index.search("area", 10)) > 0


def test_hits_are_distinct_and_limited(index: DocsIndex) -> None:
    for limit in range(5):
        hits = names(index, "area outline polygon corners surface", limit)
        assert len(hits) == len(set(hits)) == limit


def test_threads_share_an_index(index: DocsIndex) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: names(index, "area"), range(64)))
    assert results == [names(index, "area")] * 64


def test_an_entry_is_found_by_any_of_its_paths(index: DocsIndex) -> None:
    assert index.entry("Shapes.Plane.area") == NAMES[0].entry
    assert index.entry("area") is None

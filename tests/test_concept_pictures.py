"""Tests of the pictures of docs/concepts.md: they are as drawn, and what they show follows the definitions.

No counterpart: tests scripts/concept_pictures.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from scripts.concept_pictures import FOLDER, PROBABILITIES, cells_of, pictures, split_record

PAGE = Path(__file__).resolve().parents[1] / "docs" / "concepts.md"


@pytest.mark.parametrize("name", list(pictures()))
def test_the_page_shows_each_picture_as_the_script_draws_it(name: str) -> None:
    content = (FOLDER / name).read_text(encoding="utf-8")
    assert content == pictures()[name], "run python scripts/concept_pictures.py"
    assert f"(pictures/{name})" in PAGE.read_text(encoding="utf-8")
    ET.fromstring(content)


def test_draws_stand_for_the_tail_without_bias() -> None:
    assert sum(PROBABILITIES) == pytest.approx(1.0)
    steps = 2000
    counts: dict[int, float] = {}
    for step in range(steps):
        head, draws = split_record(PROBABILITIES, 0.04, (step + 0.5) / steps)
        for number in draws:
            counts[number] = counts.get(number, 0.0) + sum(PROBABILITIES[head:]) / len(draws) / steps
    assert head == 4
    assert counts == pytest.approx(dict(enumerate(PROBABILITIES[head:], head)), abs=1e-4)


def test_a_cell_holds_the_ids_of_its_longest_root() -> None:
    cells = cells_of(["a", "ab", "abc", "b", "c"], ["a", "ab"], ["b", "c"])
    assert cells == {"a": ["a"], "ab": ["ab", "abc"], "b": ["b"], "c": ["c"]}
    assert cells_of(["z"], ["a"], []) == {"OTHER": ["z"]}

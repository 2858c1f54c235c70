"""Small corpora of JSON rows for the tests of filters."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.settings import FilterSettings

GOOD = "def weigh(parcel):\n    return parcel.kg\n"


def filtered(rows: list[dict[str, Any]], folder: Path, **settings: Any) -> Corpus:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    filters = FilterSettings(**{"decontaminate": "none", **settings})
    return Corpus(data=str(path), seed=0, filters=filters, drop_log=DropLog())


def words(number: int, seed: int) -> list[str]:
    return [f"name_{random.Random(seed * 1000 + i).randrange(10**6)}" for i in range(number)]


ROW = {
    "task_id": 7,
    "text": "Write a function to weigh every second parcel of a train and subtract the empty wagons.",
    "code": (
        "def weigh(parcels, wagons):\r\n    total = 0\r\n"
        "    for i, parcel in enumerate(parcels):\r\n        if i % 2:\r\n            total += parcel['kg']\r\n"
        "    return total - sum(w for w in wagons if w > 0)\r\n"
    ),
    "test_list": [
        'assert weigh([{"kg": 3}, {"kg": 5}], [1, 2]) == 2',
        'assert weigh([{"kg": 1}, {"kg": 9}, {"kg": 4}], []) == 9',
    ],
}


@pytest.fixture
def mbpp(tmp_path: Path) -> Path:
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path

"""Tests of the documents' order: it depends on seed and content alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_dump.corpus import order as order_module
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.document import Document
from teacher_dump.corpus.order import in_buckets
from tests.teacher_dump.conftest import SOURCES


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=30), unique=True, max_size=40), memory=st.sampled_from([1, 100, 10**6]))
def test_the_order_does_not_depend_on_what_fits_in_memory(texts: list[str], memory: int) -> None:
    items = [Document(text=t, source="", path="", licence="", sha256=str(n)) for n, t in enumerate(texts)]

    def place(document: Document) -> bytes:
        return random.Random(document.sha256).randbytes(8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "BUCKET_MEMORY", memory)
        assert list(in_buckets(iter(items), place)) == sorted(items, key=place)


def test_order_depends_on_seed_and_content_alone(corpus_folder: Path, tmp_path: Path) -> None:
    def order(path: Path, seed: int) -> list[str]:
        return [d.sha256 for d in Corpus(data=str(path), seed=seed)]

    lines = tmp_path / "same.jsonl"
    lines.write_text("".join(json.dumps({"content": t}) + "\n" for t in reversed(SOURCES.values())))
    assert order(corpus_folder, 0) == order(lines, 0)
    assert len({tuple(order(corpus_folder, seed)) for seed in range(8)}) > 1

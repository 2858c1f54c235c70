"""Tests of the sources of a corpus."""

from __future__ import annotations

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.errors import DumpError


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DumpError, match="found no such file"):
        list(Corpus(data="nowhere.jsonl", seed=0))

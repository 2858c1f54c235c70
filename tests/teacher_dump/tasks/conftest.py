"""Windows of small corpora for the tests of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.tasks.windowing import Window, cut_windows


@pytest.fixture(scope="session")
def tokenizer(tiny_teacher: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_teacher)


def cut(corpus: Corpus, tokenizer: Any, window_tokens: int = 32) -> list[Window]:
    return list(cut_windows(corpus, tokenizer, prefix_tokens=(0,), window_tokens=window_tokens, counts=corpus.counts))

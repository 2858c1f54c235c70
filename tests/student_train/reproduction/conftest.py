"""A run of a few steps that starts from a base model in a folder, which nobody else has."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from student_train.cli import main
from tests.shards.fake_hub import hub  # noqa: F401 (a fixture)
from tests.shards.faulty_s3 import s3, s3_server  # noqa: F401 (fixtures)
from tests.student_train.toy import run, toy_config


def invoke(*arguments: object) -> Result:
    """Run student-train in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def recorded(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the run. No test may change it; `run_folder` copies it."""
    root = tmp_path_factory.mktemp("recorded")
    base = root / "base"
    shutil.copytree(world.teacher_dir, base)
    patch = pytest.MonkeyPatch()
    patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
    run(toy_config(world, root / "run", student=str(base), max_steps=4, save_every=2, keep=1))
    patch.undo()
    return root / "run"


@pytest.fixture
def run_folder(recorded: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the user's cache be an empty folder, as on the machine of a stranger; return it."""
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "stranger"))
    return tmp_path / "stranger"

"""Tests of what a crash leaves behind. Full disks are tested where they occur: `test_checkpoint.py`."""

from __future__ import annotations

from pathlib import Path

from student_train.outputs import files


def test_what_a_crash_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / f"{files.TEMPORARY}step-3").mkdir(parents=True)
    (tmp_path / f"{files.TEMPORARY}run.json").write_text("{")
    (tmp_path / "run.json").write_text("{}")
    files.remove_incomplete(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["checkpoints", "run.json"]

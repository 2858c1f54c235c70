"""A checkpoint is complete or absent, whatever happens while it is written."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.errors import CheckpointError
from student_train.outputs import checkpoint, export, files


def model_and_optimizer(tools: Any) -> tuple[Any, torch.optim.Optimizer]:
    model = tools.llama(vocab=60, layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    return model, optimizer


def save(out: Path, model: Any, optimizer: Any, step: int, keep: int = 2) -> Path:
    return checkpoint.save(out, model=model, optimizer=optimizer, state={"step": step}, keep=keep)


def test_saving_and_loading_is_identity(tools: Any, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(tools)
    save(tmp_path, model, optimizer, 7)
    other, fresh = model_and_optimizer(tools)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    checkpoint.load(tmp_path, step=7, model=other, optimizer=fresh)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    before, after = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert all(torch.equal(before[i][k], after[i][k]) for i in before for k in before[i])
    assert checkpoint.read_state(tmp_path, step=7)["step"] == 7


def test_the_newest_are_kept(tools: Any, tmp_path: Path) -> None:
    made = model_and_optimizer(tools)
    for step in (2, 10, 9, 30):
        save(tmp_path, *made, step)
    assert checkpoint.steps(tmp_path) == [10, 30]


def test_a_crash_at_any_write_leaves_the_older_checkpoint(
    tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model_and_optimizer(tools)
    save(tmp_path, *made, 1)
    real, crashes = os.fsync, 0
    for survive in itertools.count():
        left = [survive]

        def dies(handle: int, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(handle)

        monkeypatch.setattr(os, "fsync", dies)
        try:
            save(tmp_path, *made, 2)
            break
        except KeyboardInterrupt:
            crashes += 1
        monkeypatch.setattr(os, "fsync", real)
        found = checkpoint.steps(tmp_path)
        assert found in ([1], [1, 2])
        checkpoint.load(tmp_path, step=found[-1], model=made[0], optimizer=made[1])
        files.remove_incomplete(tmp_path)
        assert sorted(os.listdir(tmp_path / "checkpoints")) == [f"step-{step}" for step in found]
        if found == [1, 2]:
            break
    # Two by torch for its files, ours for each file, the folder, and the folder above after the rename.
    assert crashes >= 6
    monkeypatch.undo()
    save(tmp_path, *made, 3)
    assert checkpoint.steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
def test_a_damaged_checkpoint_is_refused_by_name(tools: Any, tmp_path: Path, name: str, damage: str) -> None:
    model, optimizer = model_and_optimizer(tools)
    file = save(tmp_path, model, optimizer, 3) / name
    raw = bytearray(file.read_bytes())
    file.unlink()
    if damage == "short":
        file.write_bytes(raw[: len(raw) // 2])
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    what = r"(is missing|has sha256 \w+, it was written with \w+)"
    with pytest.raises(CheckpointError, match=rf"found damage: {re.escape(name)} {what}; expected a whole"):
        checkpoint.load(tmp_path, step=3, model=model, optimizer=optimizer)


def test_a_newer_version_is_refused(tools: Any, tmp_path: Path) -> None:
    place = save(tmp_path, *model_and_optimizer(tools), 3)
    (place / "state.json").write_text('{"version": 99, "step": 3}')
    with pytest.raises(CheckpointError, match="found checkpoint version 99, expected 2"):
        checkpoint.read_state(tmp_path, step=3)


def test_too_little_room_is_seen_before_writing(tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model_and_optimizer(tools)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"found 1,000 bytes free .*, expected [\d,]+ bytes .* make room"):
        save(tmp_path / "new", *made, 1)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("filled", range(0, 160, 20))
def test_a_disk_that_fills_while_writing_is_one_line_and_leaves_nothing(
    tools: Any, small_disk: Path, filled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model_and_optimizer(tools)
    (small_disk / "ballast").write_bytes(b"x" * filled * 1024)
    monkeypatch.setattr(checkpoint, "require_room", lambda out, needed: None)
    with pytest.raises(CheckpointError, match="found a full disk"):
        save(small_disk / "out", *made, 1)
    assert checkpoint.steps(small_disk / "out") == []
    assert list((small_disk / "out").glob("checkpoints/*")) == []


@pytest.mark.parametrize("filled", range(80, 160, 20))
def test_a_disk_that_fills_while_exporting_is_one_line(
    tools: Any, world: Any, small_disk: Path, filled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = model_and_optimizer(tools)
    (small_disk / "ballast").write_bytes(b"x" * filled * 1024)
    (small_disk / "out").mkdir()
    monkeypatch.setattr(export, "require_room", lambda out, needed: None)
    with pytest.raises(CheckpointError, match="found a full disk"):
        export.export(small_disk / "out", model=model, tokenizer_dir=world.teacher_dir, dtype="float32")
    assert list((small_disk / "out").iterdir()) == []

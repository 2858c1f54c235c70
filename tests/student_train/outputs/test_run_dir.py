"""Tests of resuming, skipping and refusing a folder: other base models, damaged files, strangers' files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from student_train.errors import CheckpointError, Interrupted, StudentError, TrainError
from student_train.training import trainer
from tests.student_train.toy import run, toy_config

config = partial(toy_config, max_steps=6, save_every=2, keep=3)


@pytest.fixture(scope="module")
def trained(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    patch = pytest.MonkeyPatch()
    patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
    run(config(world, out))
    patch.undo()
    return out


@pytest.fixture
def stopped(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run as it was before its end: checkpoints and logs, no model and no record."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    for entry in out.iterdir():
        if entry.name not in ("checkpoints", "metrics.jsonl"):
            entry.unlink()
    shutil.rmtree(out / "checkpoints" / "step-6")
    return out


@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_other_base_weights_are_refused_with_both_digests(
    finished: bool, world: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.teacher_dir, base)
    settings = config(world, tmp_path / "run", student=str(base), student_layers=0)
    if finished:
        run(settings)
    else:
        monkeypatch.setattr(trainer, "require_trainable", lambda *_: None)
        monkeypatch.setattr(trainer, "_finish", stop)
        with pytest.raises(Interrupted):
            run(settings)
    tools.llama(vocab=world.vocab, seed=7).save_pretrained(base)
    with pytest.raises(CheckpointError, match=r"began with base weights \w{12}, expected \w{12}, the student's"):
        run(settings)
    shutil.rmtree(base)
    if finished:
        assert "finished earlier" in run(settings)[0]


@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_another_configuration_of_the_same_weights_is_another_base(
    finished: bool, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.teacher_dir, base)
    settings = config(world, tmp_path / "run", student=str(base), student_layers=0)
    with monkeypatch.context() as patch, contextlib.suppress(Interrupted):
        if not finished:
            patch.setattr(trainer, "_finish", stop)
        run(settings)
    path = base / "config.json"
    changed = json.loads(path.read_text())
    changed["rope_parameters"] = {"rope_type": "default", "rope_theta": 5000.0}
    path.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match=r"began with base configuration \w{12}, expected \w{12}, the student's"):
        run(settings)


def stop(*_: Any, **__: Any) -> None:
    raise Interrupted("stopped")


@pytest.mark.slow
def test_a_run_of_an_earlier_release_has_no_digest_and_is_continued(world: Any, at_home: Any, stopped: Path) -> None:
    for place in (stopped / "checkpoints").iterdir():
        state = json.loads((place / "state.json").read_text())
        del state["base_sha256"], state["base_config_sha256"], state["sha256"]
        (place / "state.json").write_text(json.dumps(state))
    assert any("continuing at step 4 of 6" in line for line in run(config(world, stopped)))
    record = json.loads((stopped / "run.json").read_text())
    assert len(record["student"]["weights_sha256"]) == 64


def test_a_folder_with_the_teachers_name_is_not_taken_for_the_teacher(
    world: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world.teacher_dir, tmp_path / "tiny-teacher")
    with pytest.raises(StudentError, match="but the shards were made by abababababab"):
        run(config(world, tmp_path / "out"))


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_nul(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_digit(path: Path) -> None:
    raw = path.read_text()
    path.write_text(raw.replace('"tokens": ', '"tokens": 1', 1))


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_digit, *(pytest.param(d, marks=pytest.mark.slow) for d in (damage_nul, damage_empty))]
)
@pytest.mark.slow
def test_a_damaged_state_is_said_and_the_run_goes_on_from_the_checkpoint_before(
    damage: Any, world: Any, at_home: Any, trained: Path, stopped: Path
) -> None:
    damage(stopped / "checkpoints" / "step-4" / "state.json")
    said = run(config(world, stopped))
    assert "step-4/state.json: damaged; resuming from the checkpoint before it, of step 2" in said[0]
    assert any("continuing at step 2 of 6" in line for line in said)
    assert (stopped / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_damaged_states_everywhere_are_one_line(world: Any, at_home: Any, stopped: Path) -> None:
    for state in stopped.glob("checkpoints/*/state.json"):
        damage_cut(state)
    with pytest.raises(CheckpointError, match=r"found a damaged state.json in every checkpoint \(2\)"):
        run(config(world, stopped))


@pytest.mark.parametrize(
    "damage", [damage_cut, *(pytest.param(d, marks=pytest.mark.slow) for d in (damage_nul, damage_empty))]
)
def test_a_damaged_record_is_said_and_written_again(
    damage: Any, world: Any, at_home: Any, trained: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    damage(out / "run.json")
    said = run(config(world, out))
    assert "run.json: damaged; resuming from the newest checkpoint" in said[0]
    assert json.loads((out / "run.json").read_text())["train"]["steps"] == 6
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    damage(out / "run.json")
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(CheckpointError, match=r"run.json: found a damaged record and no checkpoint to resume from"):
        run(config(world, out))


@pytest.mark.parametrize(("name", "value"), [("tokens", float("nan")), ("kept", "x"), ("num_layers", None)])
def test_a_record_with_damaged_values_is_one_line(
    name: str, value: Any, world: Any, at_home: Any, trained: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    record = json.loads((out / "run.json").read_text())
    record["student"]["layer_choice"][name] = value
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"run.json: found a damaged record; delete that file and give"):
        run(config(world, out))


@pytest.mark.parametrize(
    "tail",
    [
        b'{"step": 4, "lo',
        *(pytest.param(t, marks=pytest.mark.slow) for t in (bytes(300), b"\xff\xfe\n", b"[1]\n", b'{"step": "x"}\n')),
    ],
)
def test_damaged_lines_of_a_log_are_left_out_and_counted(tail: bytes, world: Any, at_home: Any, stopped: Path) -> None:
    log = stopped / "metrics.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]) + tail)
    said = run(config(world, stopped))
    assert any("metrics.jsonl: left out 1 damaged lines" in line for line in said)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_what_a_disk_puts_into_every_folder_is_tolerated(world: Any, at_home: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / "lost+found").mkdir(parents=True)
    (tmp_path / "out" / ".Trash-0").mkdir()
    run(config(world, tmp_path / "out"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match=r"found thesis.tex, expected an empty folder"):
        run(config(world, tmp_path / "other"))


def test_a_run_that_would_train_on_nothing_is_refused_before_its_first_step(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=r"found no token to train on in \d+ steps.*--held-out 0.9999"):
        run(config(world, tmp_path / "out", held_out=0.9999))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_step_without_a_token_is_said_and_logs_no_loss(world: Any, at_home: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run(config(world, out, held_out=0.8, batch_tokens=40, max_steps=30))
    record = json.loads((out / "run.json").read_text())
    empty = record["train"]["empty_steps"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert 0 < empty < 30
    assert len(lines) == 30 - empty
    assert all(line["loss"] > 0 for line in lines)
    assert sum("has no token to learn" in line for line in said) == 1


def test_a_finished_run_on_a_read_only_disk_says_that_nothing_is_to_do(
    world: Any, at_home: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "unlink", read_only)
    assert run(config(world, trained)) == [
        f"{trained}: finished earlier, nothing to do; name another --out for another run"
    ]
    with pytest.raises(CheckpointError, match=r"cannot write there .*Read-only file system"):
        run(config(world, tmp_path / "out"))

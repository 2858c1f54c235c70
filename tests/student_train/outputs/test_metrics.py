"""Metrics reach the log and the boards once, however often a run is resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from student_train.config import Config
from student_train.errors import TrainError
from student_train.outputs.metrics import open_metrics


def config(out: Path, **more: bool) -> Config:
    return Config(out=str(out), **{"tensorboard": False, **more})


def test_a_continued_log_reads_as_if_the_run_had_never_stopped(tmp_path: Path) -> None:
    with open_metrics(config(tmp_path), 0, boards=True) as log:
        for step in (1, 2, 3):
            log.write("metrics.jsonl", {"step": step, "loss": step / 2})
    with open_metrics(config(tmp_path), 2, boards=True) as log:
        log.write("metrics.jsonl", {"step": 3, "loss": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with open_metrics(config(tmp_path, tensorboard=True), first, boards=True) as log:
            for step in steps:
                log.write("metrics.jsonl", {"step": step, "loss": float(step + first)}, prefix="train/")
    board = EventAccumulator(str(tmp_path / "tb"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 5.0), (4, 6.0)]


def test_a_rank_that_is_not_the_main_one_writes_no_board(tmp_path: Path) -> None:
    with open_metrics(config(tmp_path, tensorboard=True, wandb=True), 0, boards=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    real = wandb.init

    def watched(**settings: object) -> object:
        made = real(**settings)
        ids.append(made.id)
        return made

    monkeypatch.setattr(wandb, "init", watched)
    for first in (0, 2):
        with open_metrics(config(tmp_path, wandb=True), first, boards=True) as log:
            log.write("metrics.jsonl", {"step": first + 1, "loss": 0.5})
    assert ids == [ids[0]] * 2
    assert ids[0] == (tmp_path / "wandb" / "id").read_text()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_weights_and_biases_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(TrainError, match=r"wandb: found no package wandb, .* pip install 'teacherless\[wandb\]'"),
        open_metrics(config(tmp_path, wandb=True), 0, boards=True),
    ):
        pass

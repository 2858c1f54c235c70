"""Two processes train what one process trains, and each resumes the other's run: torchrun, gloo, FSDP2.

One process is that of the test. Two are started by torchrun, or where a run is stopped and continued, by a fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from student_train.config import Config
from student_train.errors import Interrupted
from student_train.training import loop
from tests.student_train.forked import train_in_ranks
from tests.student_train.toy import arguments, environment, losses, run, toy_config

STEPS = 8


def settings(world: Any, out: Path) -> Config:
    return toy_config(world, out, max_steps=STEPS, micro_tokens=60, save_every=3, device="cpu")


def stop_alone(config: Config, at: int) -> str:
    """Run in this process to a signal at a step; return what was said."""
    real = loop.take_step

    def step(*args: Any, number: int, **named: Any) -> Any:
        if number == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, number=number, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(loop, "take_step", step)
        run(config)
    return str(stopped.value)


def train_by_torchrun(world: Any, config: Config) -> str:
    """Run two processes to the end; return what was said."""
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(29000 + os.getpid() % 2000)]
    command = [sys.executable, "-m", *torchrun, "-m", "student_train", *arguments(config)]
    done = subprocess.run(command, env=environment(world), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "model.safetensors")


@pytest.mark.slow
def test_two_processes_equal_one_and_each_continues_the_other(world: Any, at_home: Any, tmp_path: Path) -> None:
    one, two, mixed = tmp_path / "one", tmp_path / "two", tmp_path / "mixed"
    run(settings(world, one))
    said = train_by_torchrun(world, settings(world, two))
    assert said.count(f"{two}: {STEPS} steps") == 1
    assert [loss for _, loss in losses(two)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)

    # Stopped twice, each time continued by another number of processes.
    assert f"stopped at step 4 of {STEPS}" in train_in_ranks(world, settings(world, mixed), stop_at=3)
    assert f"stopped at step 6 of {STEPS}" in stop_alone(settings(world, mixed), 5)
    assert f"continuing at step 6 of {STEPS}" in train_in_ranks(world, settings(world, mixed))
    assert [loss for _, loss in losses(mixed)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)

    expected = weights(one)
    for other in (two, mixed):
        found = weights(other)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)
        records = [json.loads((p / "run.json").read_text()) for p in (one, other)]
        assert records[0]["train"]["tokens"] == records[1]["train"]["tokens"]
        assert records[0]["student"] == records[1]["student"]
        digests = [record["weights"]["checkpoints"] for record in records]
        assert digests[0]["0"] == digests[1]["0"]
        assert all(len(digest) == 64 for digest in digests[1].values())
        after = [record["held_out"]["after"]["kl"]["mean"] for record in records]
        assert after[1] == pytest.approx(after[0], rel=1e-4)
        rows = [(p / "held_out.jsonl").read_text().splitlines() for p in (one, other)]
        assert [json.loads(line)["document"] for line in rows[0]] == [json.loads(line)["document"] for line in rows[1]]


@pytest.mark.slow
def test_a_signal_to_one_rank_in_an_evaluation_stops_all_of_them_and_loses_nothing(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    whole, stopped = (
        toy_config(world, tmp_path / name, max_steps=5, save_every=0, eval_every=3, device="cpu")
        for name in ("whole", "stopped")
    )
    train_in_ranks(world, whole)
    assert train_in_ranks(world, stopped, stop_at=3, stop_in="score_run").count("stopped at step 3 of 5") == 2
    assert "continuing at step 3 of 5" in train_in_ranks(world, stopped)
    names = ("held_out_curve.jsonl", "model.safetensors")
    assert all((Path(whole.out) / n).read_bytes() == (Path(stopped.out) / n).read_bytes() for n in names)
    assert losses(Path(stopped.out)) == losses(Path(whole.out))

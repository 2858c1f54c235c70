"""Two processes train what one process trains, and each resumes the other's run: torchrun, gloo, FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

REPOSITORY = Path(__file__).parents[3]
STEPS = 8


def start(world: Any, out: Path, *, ranks: int, stop_at: int = 0) -> str:
    """Run to the end, or to a signal that one rank gets at `stop_at`; return what was said."""
    flags = ["--student", "teacher", "--student-layers", "2", "--max-steps", STEPS, "--batch-tokens", "150"]
    flags += ["--micro-tokens", "60", "--learning-rate", "3e-3", "--held-out", "0.2", "--save-every", "3"]
    flags += ["--no-tensorboard", "--no-progress", "--threads", "1", "--device", "cpu", "--dtype", "float32"]
    arguments = ["--shards", world.shards, "--out", out, *flags]
    code = (
        "import os, signal, sys; from student_train.training import loop; real = loop.take_step\n"
        "def step(*a, number, **k):\n"
        f"    if number == {stop_at} and os.environ.get('RANK', '0') == '0':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(*a, number=number, **k)\n"
        "loop.take_step = step\nfrom student_train.cli import main; main()"
    )
    script = out.with_suffix(".py")
    script.write_text(code)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", ranks, "--master-port", 29000 + os.getpid() % 2000]
    command = [sys.executable, *(torchrun if ranks > 1 else []), script, *arguments]
    environment = {
        **os.environ,
        "TEACHERLESS_CACHE": str(world.cache_dir),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, timeout=240)
    if not stop_at:
        assert done.returncode == 0, done.stderr
    return done.stderr


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "model.safetensors")


@pytest.mark.slow
def test_two_processes_equal_one_and_each_continues_the_other(world: Any, tmp_path: Path) -> None:
    one, two, mixed = tmp_path / "one", tmp_path / "two", tmp_path / "mixed"
    start(world, one, ranks=1)
    said = start(world, two, ranks=2)
    assert said.count(f"{two}: {STEPS} steps") == 1
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)

    # Stopped twice, each time continued by another number of ranks.
    assert f"stopped at step 4 of {STEPS}" in start(world, mixed, ranks=2, stop_at=3)
    assert f"stopped at step 6 of {STEPS}" in start(world, mixed, ranks=1, stop_at=5)
    assert f"continuing at step 6 of {STEPS}" in start(world, mixed, ranks=2)
    assert losses(mixed) == pytest.approx(losses(one), rel=1e-5)

    expected = weights(one)
    for other in (two, mixed):
        found = weights(other)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)
        records = [json.loads((p / "run.json").read_text()) for p in (one, other)]
        assert records[0]["train"]["tokens"] == records[1]["train"]["tokens"]
        assert records[0]["student"] == records[1]["student"]
        after = [record["held_out"]["after"]["kl"]["mean"] for record in records]
        assert after[1] == pytest.approx(after[0], rel=1e-4)
        rows = [(p / "held_out.jsonl").read_text().splitlines() for p in (one, other)]
        assert [json.loads(line)["document"] for line in rows[0]] == [json.loads(line)["document"] for line in rows[1]]

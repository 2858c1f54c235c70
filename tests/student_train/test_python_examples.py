"""The examples of docs/python.md train what `student-train` trains, and the page quotes them as they are.

No counterpart: runs the files of docs/examples/python/ as a user does.
"""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import student_train
from student_train import Config
from tests.exhaustive import exhaustive
from tests.student_train.toy import REPOSITORY, digest, environment, losses, run

EXAMPLES = REPOSITORY / "docs" / "examples" / "python"
PAGE = REPOSITORY / "docs" / "python.md"
STEPS = 6
OPTIONS = ["--max-steps", str(STEPS), "--batch-tokens", "150", "--held-out", "0.2", "--dtype", "float32"]


@pytest.fixture(scope="module")
def trained(world: Any, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(world, student, tmp_path_factory.mktemp("trained") / "ckpt")


def train(world: Any, student: Path, out: Path, **more: Any) -> Path:
    """Return the folder that `student-train` writes with the settings of the examples, and others."""
    settings = Config(
        shards=(str(world.shards),), student=str(student), out=str(out), max_steps=STEPS, batch_tokens=150,
        micro_tokens=2048, held_out=0.2, dtype="float32", tensorboard=False, progress=False, threads=1,
    )  # fmt: skip
    run(replace(settings, device="cpu", **more))
    return out


def start(name: str, patch: pytest.MonkeyPatch, *arguments: object) -> dict[str, Any]:
    """Run an example in this process; return its global names."""
    patch.setattr(sys, "argv", [name, *map(str, arguments), *OPTIONS])
    patch.setattr(torch.cuda, "is_available", lambda: False)
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def stop_after(updates: int, patch: pytest.MonkeyPatch) -> None:
    """Interrupt the process before the update that follows so many."""
    real, left = torch.optim.AdamW.step, [updates]

    def step(self: Any, *args: Any, **named: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, *args, **named)

    patch.setattr(torch.optim.AdamW, "step", step)


def printed_losses(text: str) -> list[float]:
    return [float(loss) for loss in re.findall(rf"^step \d+ of {STEPS}: loss (\d+\.\d+)$", text, re.MULTILINE)]


def measures_of(trained: Path, names: Any) -> dict[str, float]:
    after = json.loads((trained / "run.json").read_text())["held_out"]["after"]
    return {name: after[name]["mean"] for name in names}


def assert_same_weights(out: Path, trained: Path) -> None:
    found, expected = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (out, trained))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


def blocks() -> list[str]:
    """Return the Python blocks of the page."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def is_quoted(block: str) -> bool:
    """Return whether a block is part of an example."""
    return any(block in example.read_text() for example in EXAMPLES.glob("*.py"))


def test_the_page_quotes_the_examples_as_they_are() -> None:
    quoted = [block for block in blocks() if is_quoted(block)]
    assert quoted[0] == (EXAMPLES / "plain_loop.py").read_text()
    assert [re.findall(r"^(?:class|def) (\w+)", block, re.MULTILINE) for block in quoted[1:]] == [
        ["Steps", "DistillationTrainer"],
        [],
        ["shard", "train"],
    ]
    assert len(blocks()) == len(quoted) + 4


@pytest.mark.slow
def test_the_other_blocks_of_the_page_run(
    world: Any, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").symlink_to(world.shards)
    (tmp_path / "student").symlink_to(student)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks():
        if is_quoted(block) or ("duckdb" in block and importlib.util.find_spec("duckdb") is None):
            continue
        exec(block.replace("max_steps=2", "max_steps=2, held_out=0.2"), names)  # so few documents, none is held out
        if "fused_loss" in block:
            assert torch.isfinite(names["output"].loss)
    assert names["distillation"].position == 2
    assert "tokens" in capsys.readouterr().out


@pytest.mark.slow
def test_the_plain_loop_writes_the_bytes_of_the_command_also_after_an_interrupt(
    world: Any, student: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (world.shards, student, tmp_path / "out", "--save-every", 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(3, patch)
        start("plain_loop.py", patch, *arguments)
    first = printed_losses(capsys.readouterr().out)
    with pytest.MonkeyPatch.context() as patch:
        start("plain_loop.py", patch, *arguments)
    said = capsys.readouterr().out
    expected = [loss for _, loss in losses(trained)]
    assert len(first) == 3
    assert [*first[:2], *printed_losses(said)] == pytest.approx(expected, rel=1e-5)
    assert digest(tmp_path / "out") == digest(trained)
    measures = json.loads(said.splitlines()[-1].replace("'", '"'))
    assert set(measures) == {"kl", "bits_per_byte", "top1_agreement", "calibration_error"}
    assert measures == pytest.approx(measures_of(trained, measures), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 3])
def test_trainer_trains_the_same_however_many_passes_it_accumulates(
    world: Any, student: Path, trained: Path, tmp_path: Path, passes: int
) -> None:
    arguments = (world.shards, student, tmp_path / "out", "--save-every", 2, "--gradient-accumulation-steps", passes)
    if passes > 1:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(3, patch)
            start("hf_trainer.py", patch, *arguments)
        assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-2"]
    with pytest.MonkeyPatch.context() as patch:
        names = start("hf_trainer.py", patch, *arguments)
    history = names["trainer"].state.log_history
    assert [line["step"] for line in history if "loss" in line] == list(range(1, STEPS + 1))
    expected = [loss for _, loss in losses(trained)]
    assert [line["loss"] for line in history if "loss" in line] == pytest.approx(expected, rel=1e-5)
    assert_same_weights(tmp_path / "out", trained)
    measures = {name: history[-1][f"eval_{name}"] for name in ("kl", "bits_per_byte", "top1_agreement")}
    assert measures == pytest.approx(measures_of(trained, measures), rel=1e-4)


def port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(world: Any, name: str, *arguments: object) -> str:
    """Run an example on two ranks; return what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command += [str(port()), str(EXAMPLES / name), *map(str, arguments), *OPTIONS]
    variables = environment(world) | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def be_the_only_rank(patch: pytest.MonkeyPatch) -> None:
    """Set what torchrun sets for one process."""
    variables = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    for name, value in variables.items():
        patch.setenv(name, str(value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("plain_loop.py", {"clip": 0.0}),
        ("hf_trainer.py", {"clip": 0.0}),
        ("hf_trainer.py", {"learning_rate": 0.0}),
        ("fsdp2.py", {"clip": 0.0}),
    ],
)
def test_a_zero_that_switches_something_off_does_so_in_the_examples(
    name: str, more: dict[str, float], world: Any, student: Path, tmp_path: Path
) -> None:
    expected = train(world, student, tmp_path / "expected", **more)
    with pytest.MonkeyPatch.context() as patch:
        if name == "fsdp2.py":
            be_the_only_rank(patch)
        patch.setattr(student_train, "Config", partial(Config, **more))
        start(name, patch, world.shards, student, tmp_path / "out")
    assert_same_weights(tmp_path / "out", expected)


@pytest.mark.slow
def test_two_ranks_of_fsdp2_train_what_one_process_trains_and_one_rank_continues_them(
    world: Any, student: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, expected = tmp_path / "out", [loss for _, loss in losses(trained)]
    said = torchrun(world, "fsdp2.py", world.shards, student, out, "--save-every", 2)
    assert printed_losses(said) == pytest.approx(expected, rel=1e-5)
    assert_same_weights(out, trained)
    measures = json.loads(said.splitlines()[-1].replace("'", '"'))
    assert measures == pytest.approx(measures_of(trained, measures), rel=1e-4)

    shutil.rmtree(out / f"step-{STEPS}")
    (out / "model.safetensors").unlink()
    with pytest.MonkeyPatch.context() as patch:
        be_the_only_rank(patch)
        start("fsdp2.py", patch, world.shards, student, out)
    assert printed_losses(capsys.readouterr().out) == pytest.approx(expected[4:], rel=1e-5)
    assert_same_weights(out, trained)


@exhaustive
@pytest.mark.slow
def test_two_ranks_of_trainer_train_what_one_process_trains(
    world: Any, student: Path, trained: Path, tmp_path: Path
) -> None:
    torchrun(world, "hf_trainer.py", world.shards, student, tmp_path / "out")
    assert_same_weights(tmp_path / "out", trained)

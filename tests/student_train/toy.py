"""Toy training runs that several test modules share."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from student_train.config import Config
from student_train.training import trainer

REPOSITORY = Path(__file__).parents[2]


def toy_config(world: Any, out: Path, **more: Any) -> Config:
    """Return the settings of a run of a few seconds: half of the tiny teacher's layers, 20 steps."""
    settings: dict[str, Any] = {
        "shards": (str(world.shards),),
        "out": str(out),
        "student": "teacher",
        "student_layers": 2,
        "max_steps": 20,
        "batch_tokens": 150,
        "micro_tokens": 80,
        "learning_rate": 3e-3,
        "held_out": 0.2,
        "save_every": 5,
        "tensorboard": False,
        "progress": False,
        "threads": 1,
        "dtype": "float32",
    }
    return Config(**{**settings, **more})


def arguments(config: Config) -> list[str]:
    """Return the command-line arguments of settings."""
    flags = []
    for name, value in config.to_dict().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list) and name == "shards":
            flags += [part for one in value for part in (f"--{flag}", one)]
        elif name != "specialist":
            flags += [f"--{flag}", str(value)]
    return flags


def environment(world: Any) -> dict[str, str]:
    """Return the environment of a process that finds the tiny teacher and this code."""
    return {**os.environ, "TEACHERLESS_CACHE": str(world.cache_dir), "PYTHONPATH": str(REPOSITORY)}


def run(config: Config, *, segments: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Train; return the log."""
    log: list[str] = []
    trainer.run(config, command=["student-train"], log=log.append, segments=segments)
    return log


def digest(out: Path) -> str:
    """Return the digest of exported weights."""
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def losses(out: Path) -> list[tuple[int, float]]:
    """Return step and loss of each line of the metrics."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]

"""Whose is the output folder? This very run's, to go on with or finished; or someone else's, which is
refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from student_train import checkpoint
from student_train.config import Config
from student_train.errors import CheckpointError


def is_finished(out: Path, config: Config, manifest_sha256: str | None) -> bool:
    """Return whether `out` holds this very run, done. Raises: CheckpointError if it holds something else.

    `manifest_sha256` is None where the cache still grows: then `follow.py` compares shard by shard.
    """
    if (out / "run.json").is_file():
        record = read_record(out)
        _require_same(out, config, manifest_sha256, record["config"], record["manifest_sha256"])
        return True
    ours = ("checkpoints", "control", "metrics.jsonl", "held_out.jsonl", "completions.json", "tb", "wandb")
    if out.is_dir():
        there = sorted(entry.name for entry in out.iterdir())
        if there and not any(name in ours for name in there):
            raise CheckpointError(
                f"{out}: found {there[0]}, expected an empty folder or one of student-train; name another --out"
            )
    elif out.exists():
        raise CheckpointError(f"{out}: found a file, expected a folder or nothing; name another --out")
    return False


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of the finished run in `out`."""
    return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))


def _require_same(
    out: Path, config: Config, manifest_sha256: str | None, settings: dict[str, Any], digest: str
) -> None:
    if manifest_sha256 is not None and digest != manifest_sha256:
        raise CheckpointError(
            f"{out}: found a run on the shards with manifest {digest[:12]}, expected {manifest_sha256[:12]} of "
            f"{config.shards}; train on those shards, or name another --out"
        )
    # A setting that is newer than the run had its default's effect then.
    had = {**Config().identity(), **settings}
    if "layer_choice" not in settings:  # runs before that setting spread their layers evenly
        dropped_layers = config.student_layers > 0 or config.student == "teacher"
        had["layer_choice"] = "even" if dropped_layers else config.layer_choice
    for name, value in config.identity().items():
        if had[name] != value:
            flag = name.replace("_", "-")
            cure = f"give --{flag} {had[name]}" if name == "dtype" else "use its settings"
            raise CheckpointError(
                f"{out}: found a run with {flag} {had[name]!r}, expected {value!r}; {cure} to continue it, or name "
                "another --out"
            )


def newest_state(out: Path, config: Config, manifest_sha256: str | None) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint, None without one. Raises: CheckpointError if it is another run's."""
    found = checkpoint.steps(out)
    if not found:
        return None
    state = checkpoint.read_state(out, step=found[-1])
    _require_same(out, config, manifest_sha256, state["config"], state["manifest_sha256"])
    return state

"""Resume, skip or refuse an output folder: it holds this very run, to go on with or finished, or something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from student_train.config import Config
from student_train.errors import CheckpointError
from student_train.outputs import checkpoint
from student_train.outputs.lock import LOCK_NAME

_FOREIGN = {"lost+found", "System Volume Information", LOCK_NAME}
"""Names that a disk, or this program, puts into any folder. Hidden ones are let through as well."""


_STATE = {"step", "tokens", "seconds", "config", "manifest_sha256", "segments", "before", "files"}
"""What the state of a run has at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What makes two runs one."""

    config: Config
    manifest_sha256: str | None
    """None where the cache still grows: then `follow.py` compares shard by shard."""
    base_sha256: str | None
    """Digest of the weights that the student starts from; None where they are unavailable, and not compared."""


def is_finished(out: Path, identity: Identity, *, say: Callable[[str], None]) -> bool:
    """Return whether `out` holds this very run, done.

    A damaged record is said, and the run goes on from its newest checkpoint.

    Raises: CheckpointError if the folder holds something else.
    """
    if (out / "run.json").is_file():
        record = _record_of(out)
        if record is not None:
            weights = record["student"].get("weights_sha256")
            _require_same(out, identity, record["config"], record["manifest_sha256"], weights)
            return True
        if not checkpoint.steps(out):
            raise CheckpointError(
                f"{out / 'run.json'}: found a damaged record and no checkpoint to go on from; delete that file to "
                "train again, or name another --out"
            )
        say(f"{out / 'run.json'}: damaged; going on from the newest checkpoint to write it again")
    ours = (
        *("checkpoints", "control", "metrics.jsonl", "held_out.jsonl", "held_out_curve.jsonl"),
        *("completions.json", "tb", "wandb"),
    )
    if out.is_dir():
        names = sorted(entry.name for entry in out.iterdir())
        there = [name for name in names if name not in _FOREIGN and not name.startswith(".")]
        if there and not any(name in ours for name in there):
            raise CheckpointError(
                f"{out}: found {there[0]}, expected an empty folder or one of student-train; name another --out"
            )
    elif out.exists():
        raise CheckpointError(f"{out}: found a file, expected a folder or nothing; name another --out")
    return False


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of the finished run in `out`. Raises: CheckpointError where it is damaged."""
    record = _record_of(out)
    if record is None:
        raise CheckpointError(
            f"{out / 'run.json'}: found a damaged record; delete that file and give the command again"
        )
    return record


def _record_of(out: Path) -> dict[str, Any] | None:
    """Return the record of a finished run; None where it is cut, damaged, or not one."""
    try:
        record = json.loads((out / "run.json").read_bytes())
        whole = all(isinstance(record[key], dict) for key in ("config", "student", "train", "held_out"))
        return dict(record) if whole and isinstance(record["manifest_sha256"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _require_same(
    out: Path, identity: Identity, settings: dict[str, Any], manifest_sha256: str, base_sha256: str | None
) -> None:
    """Raise CheckpointError where a run there is another one. One without its weights' digest is older: let through."""
    config = identity.config
    if identity.manifest_sha256 is not None and manifest_sha256 != identity.manifest_sha256:
        raise CheckpointError(
            f"{out}: found a run on the shards with manifest {manifest_sha256[:12]}, expected "
            f"{identity.manifest_sha256[:12]} of {config.shards}; train on those shards, or name another --out"
        )
    if base_sha256 and identity.base_sha256 and base_sha256 != identity.base_sha256:
        raise CheckpointError(
            f"{out}: found a run that began with base weights {base_sha256[:12]}, but the student's are "
            f"{identity.base_sha256[:12]}; bring its own weights back to continue it, or name another --out"
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


def newest_state(out: Path, identity: Identity, *, leads: bool, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state of the newest whole checkpoint, None without one.

    Newer ones whose state cannot be read are said, and removed by the rank that `leads`.

    Raises: CheckpointError if it is another run's, or no checkpoint is whole.
    """
    found = checkpoint.steps(out)
    state, damaged = None, []
    for step in reversed(found):
        state = checkpoint.read_state(out, step=step)
        if state is not None and state.keys() >= _STATE:
            break
        state = None
        damaged.append(step)
    if damaged and state is None:
        raise CheckpointError(
            f"{out / 'checkpoints'}: found a damaged state.json in every checkpoint ({len(damaged)}), expected a whole "
            "one; delete that folder to begin again, or name another --out"
        )
    if state is None:
        return None
    _require_same(out, identity, state["config"], state["manifest_sha256"], state.get("base_sha256"))
    for step in damaged:
        place = checkpoint.path_of(out, step=step)
        say(f"{place / 'state.json'}: damaged; going on from the checkpoint before it, of step {state['step']}")
        if leads:
            shutil.rmtree(place)
    return state

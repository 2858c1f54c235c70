"""Resume, skip or refuse an output folder: it holds this run, unfinished or finished, or something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from student_train.config import Config
from student_train.data.mixture import Mixture, describe_entries
from student_train.errors import CheckpointError
from student_train.model.base import BaseDigests
from student_train.outputs import checkpoint
from student_train.outputs.lock import LOCK_NAME

_IGNORED = {"lost+found", "System Volume Information", LOCK_NAME}
"""Names that a disk, or this program, puts into any folder. Hidden names are ignored as well."""
_OWN_NAMES = {
    *("checkpoints", "control", "metrics.jsonl", "held_out.jsonl", "held_out_curve.jsonl"),
    *("completions.json", "tb", "wandb"),
}
"""Names that mark a folder of student-train before its run is finished."""
_STATE_KEYS = {"step", "tokens", "seconds", "config", "manifest_sha256", "segments", "before", "files"}
"""Keys that the state of every checkpoint has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What two attempts must share to be one run."""

    config: Config
    """Settings; see `Config.identity`."""
    mixture: Mixture
    """The caches. Of one that grows, `data/segments.py` compares shard by shard."""
    base: BaseDigests | None
    """Digests of the model that the student starts from; None where unavailable, and not compared."""


def is_finished(out: Path, identity: Identity, *, log: Callable[[str], None]) -> bool:
    """Return whether a folder holds this very run, finished.

    Args:
        out: The folder.
        identity: What makes a run this one.
        log: Prints a line where the record is damaged and the run resumes from its newest checkpoint.

    Raises:
        CheckpointError: The folder holds something else.
    """
    record_path = out / "run.json"
    if record_path.is_file():
        record = _record_of(out)
        if record is not None:
            student = record["student"]
            base = student.get("weights_sha256"), student.get("config_sha256")
            _require_same(out, identity, record["config"], record, base)
            return True
        if not checkpoint.steps(out):
            raise CheckpointError(
                f"{record_path}: found a damaged record and no checkpoint to resume from; delete that file to "
                "train again, or name another --out"
            )
        log(f"{record_path}: damaged; resuming from the newest checkpoint to write it again")
    _require_own_folder(out)
    return False


def _require_own_folder(out: Path) -> None:
    if out.is_dir():
        names = sorted(entry.name for entry in out.iterdir())
        names = [name for name in names if name not in _IGNORED and not name.startswith(".")]
        if names and not _OWN_NAMES.intersection(names):
            raise CheckpointError(
                f"{out}: found {names[0]}, expected an empty folder or one of student-train; name another --out"
            )
    elif out.exists():
        raise CheckpointError(f"{out}: found a file, expected a folder or nothing; name another --out")


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of the finished run in a folder.

    Raises:
        CheckpointError: The record is damaged.
    """
    record = _record_of(out)
    if record is None:
        raise damaged_record(out)
    return record


def damaged_record(out: Path) -> CheckpointError:
    """Return the error for a record with damaged content."""
    return CheckpointError(f"{out / 'run.json'}: found a damaged record; delete that file and give the command again")


def _record_of(out: Path) -> dict[str, Any] | None:
    """Return the record of a finished run; None where it is cut, damaged, or not one."""
    try:
        record = json.loads((out / "run.json").read_bytes())
        is_whole = all(isinstance(record[key], dict) for key in ("config", "student", "train", "held_out"))
        return dict(record) if is_whole and isinstance(record["manifest_sha256"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _require_same(
    out: Path,
    identity: Identity,
    settings: dict[str, Any],
    data: dict[str, Any],
    base: tuple[str | None, str | None],
) -> None:
    """Check that a stored run is this one.

    Args:
        out: The folder.
        identity: What makes a run this one.
        settings: Stored settings.
        data: Record or state with the digest of the data, and of several caches their entries.
        base: Stored digests of the base model's weights and configuration; None where an older release wrote none.

    Raises:
        CheckpointError: They differ.
    """
    config, mixture = identity.config, identity.mixture
    if mixture.sha256 and data["manifest_sha256"] != mixture.sha256:
        stored = describe_entries(data.get("caches") or [data])
        raise CheckpointError(
            f"{out}: found a run on the shards with manifest {stored}, expected {describe_entries(mixture.entries)} of "
            f"{config.shard_paths}; train on those shards, or name another --out"
        )
    if identity.base is not None:
        digests = (identity.base.weights_sha256, identity.base.config_sha256)
        for what, stored_digest, digest in zip(("weights", "configuration"), base, digests, strict=True):
            if stored_digest and stored_digest != digest:
                raise CheckpointError(
                    f"{out}: found a run that began with base {what} {stored_digest[:12]}, expected "
                    f"{digest[:12]}, the student's; restore its own base model to resume it, or name another --out"
                )
    known = _with_defaults(settings, config)
    for name, value in config.identity().items():
        if known[name] != value:
            flag = name.replace("_", "-")
            cure = f"give --{flag} {known[name]}" if name == "dtype" else "use its settings"
            raise CheckpointError(
                f"{out}: found a run with {flag} {known[name]!r}, expected {value!r}; {cure} to resume it, or name "
                "another --out"
            )


def _with_defaults(settings: dict[str, Any], config: Config) -> dict[str, Any]:
    """Return stored settings with values for those that are newer than the run: the effect of their defaults."""
    stored = {**Config().identity(), **settings}
    if "layer_choice" not in settings:  # earlier runs kept evenly spaced layers
        dropped_layers = config.student_layers > 0 or config.student == "teacher"
        stored["layer_choice"] = "even" if dropped_layers else config.layer_choice
    return stored


def newest_state(out: Path, identity: Identity, *, is_main: bool, log: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state of the newest whole checkpoint; None without one.

    Newer checkpoints with a damaged state are logged, and removed by the main rank.

    Args:
        out: Folder of the run.
        identity: What makes a run this one.
        is_main: Whether this is the main rank.
        log: Prints a line about damage.

    Raises:
        CheckpointError: The checkpoint belongs to another run, or none is whole.
    """
    state, damaged = None, []
    for step in reversed(checkpoint.steps(out)):
        state = checkpoint.read_state(out, step=step)
        if state is not None and state.keys() >= _STATE_KEYS:
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
    base = state.get("base_sha256"), state.get("base_config_sha256")
    _require_same(out, identity, state["config"], state, base)
    for step in damaged:
        place = checkpoint.path_of(out, step=step)
        log(f"{place / 'state.json'}: damaged; resuming from the checkpoint before it, of step {state['step']}")
        if is_main:
            shutil.rmtree(place)
    return state

"""Checkpoints that are complete or absent.

`OUT/checkpoints/step-N/` holds the files of torch's distributed checkpoint (`.metadata`, `__R_0.distcp`): parameters
that train and the state of the optimiser, float32, one file for each rank. `state.json` holds the global state: step,
identity of the run, tokens so far, held-out scores before training, and digests of the other files. It holds no rank,
no world size and no random state, so another number of ranks can resume.

A checkpoint is written under a temporary name, synced and renamed, so the name `step-N` means complete. A crash loses
at most the steps since the newest one. With several ranks OUT must be a folder that all of them see.

Not safe with files from strangers: `.metadata` is a pickle. The exported folder uses safetensors.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from shards.storage.atomic import sync_path
from student_train.errors import CheckpointError
from student_train.outputs.files import TEMPORARY, full_disk_errors, require_room
from student_train.training.distributed import World

STATE_VERSION = 2
_NAME = re.compile(r"step-(\d+)")


def steps(out: Path) -> list[int]:
    """Return the steps of complete checkpoints, ascending."""
    folder = out / "checkpoints"
    names = (_NAME.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match[1]) for match in names if match)


def path_of(out: Path, *, step: int) -> Path:
    """Return the folder of the checkpoint of `step`, which need not exist."""
    return out / "checkpoints" / f"step-{step}"


def save(
    out: Path, *, model: Any, optimizer: Any, state: dict[str, Any], keep: int, world: World | None = None
) -> Path:
    """Write a checkpoint, then remove all but the newest ones. A collective.

    Each rank writes its own part. The main rank renames the folder when all are done.

    Args:
        out: Folder of the run.
        model: The model; parameters that require no gradient are left out.
        optimizer: Its optimiser.
        state: Global state, as JSON can hold it, with the key "step".
        keep: Number of newest checkpoints to keep.
        world: All ranks; None for one process.

    Returns:
        The folder of the checkpoint.

    Raises:
        CheckpointError: The disk is full. Older checkpoints are unchanged.
    """
    world = world or World()
    place = path_of(out, step=state["step"])
    if world.gather(place.is_dir())[0]:
        return place
    tensors = _tensors(model, optimizer)
    needed = sum(t.numel() * t.element_size() for t in tensors.values())
    temporary = place.with_name(TEMPORARY + place.name)
    if world.is_main:
        require_room(out, needed)
        shutil.rmtree(temporary, ignore_errors=True)
    with full_disk_errors(out, needed, temporary):
        files = _write_parts(temporary, tensors, world)
        if not world.is_main:
            return place
        _write_state(temporary, state, files)
        temporary.rename(place)
        sync_path(place.parent)
    for old in steps(out)[:-keep]:
        shutil.rmtree(path_of(out, step=old))
    return place


def _write_parts(temporary: Path, tensors: dict[str, Any], world: World) -> dict[str, str]:
    """Write each rank's tensors; return the digests of all parts by name."""
    import torch.distributed.checkpoint as dcp

    if world.is_main:
        temporary.mkdir(parents=True)
    world.barrier()
    with _unwrapped_errors():
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary), no_dist=world.size == 1)
    names = sorted(temporary.glob(f"__{world.rank}_*"))
    parts = world.gather({path.name: _sha256(path) for path in names})
    return {name: digest for part in parts for name, digest in part.items()}


def _write_state(temporary: Path, state: dict[str, Any], files: dict[str, str]) -> None:
    """Write `state.json` with the digests of all files, and sync everything."""
    files = files | {".metadata": _sha256(temporary / ".metadata")}
    body = {**state, "version": STATE_VERSION, "files": files}
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
    (temporary / "state.json").write_text(text, encoding="utf-8")
    for entry in temporary.iterdir():
        sync_path(entry)
    sync_path(temporary)


def read_state(out: Path, *, step: int) -> dict[str, Any] | None:
    """Return the state of a checkpoint; None where it is cut or damaged.

    Raises:
        CheckpointError: It has another version.
    """
    place = path_of(out, step=step)
    try:
        state = dict(json.loads((place / "state.json").read_bytes()))
        version = state["version"]
        if "sha256" in state and state.pop("sha256") != _digest(state):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if version != STATE_VERSION:
        raise CheckpointError(
            f"{place}: found checkpoint version {version}, expected {STATE_VERSION}; use the version of teacherless "
            "that wrote it, or another --out"
        )
    return state


def load(out: Path, *, step: int, model: Any, optimizer: Any, world: World | None = None) -> None:
    """Load parameters and optimiser state of a checkpoint, in place. A collective.

    Args:
        out: Folder of the run.
        step: Step of the checkpoint.
        model: The model.
        optimizer: Its optimiser. The settings of its groups stay: they come from the configuration.
        world: All ranks; None for one process.

    Raises:
        CheckpointError: The checkpoint is damaged.
    """
    import torch.distributed.checkpoint as dcp

    world = world or World()
    place = path_of(out, step=step)
    stored = read_state(out, step=step)
    if stored is None:
        raise _broken(place, "found damage: state.json is cut or missing")
    _require_sound(place, stored["files"], world)
    try:
        reader = dcp.FileSystemReader(place)
        tensors, optimizer_state = _destinations(model, reader.read_metadata().state_dict_metadata)
        with _unwrapped_errors():
            dcp.load(tensors, storage_reader=reader, no_dist=world.size == 1)
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, UnpicklingError) as error:
        lines = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise _broken(place, f"does not load ({lines[0]})") from None
    optimizer.state.clear()
    optimizer.state.update(optimizer_state)


def _destinations(model: Any, stored: dict[str, Any]) -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """Return tensors to load into, by name, and the optimiser's state made of some of them.

    Args:
        model: The model, whose parameters are loaded in place.
        stored: Metadata of the checkpoint's tensors, by name.
    """
    import torch

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tensors = {f"model.{name}": p.detach() for name, p in parameters.items()}
    state: dict[Any, dict[str, Any]] = {}
    for key, about in stored.items():
        if key.startswith("optimizer."):
            name, _, part = key.removeprefix("optimizer.").rpartition(".")
            p = parameters[name]
            # Moments are sharded as their parameter is. Counters are whole on every rank, and on the CPU.
            like = torch.zeros_like(p) if about.size == p.shape else torch.zeros(about.size)
            tensors[key] = state.setdefault(p, {})[part] = like.detach()
    return tensors, state


def _require_sound(place: Path, files: dict[str, str], world: World) -> None:
    """Check the digest of every file. Ranks share the files out.

    Raises:
        CheckpointError: A file is missing or changed.
    """
    damage = ""
    for name, digest in sorted(files.items())[world.rank :: world.size]:
        path = place / name
        if not path.is_file():
            damage = f"{name} is missing"
        elif (found := _sha256(path)) != digest:
            damage = f"{name} has sha256 {found[:12]}, it was written with {digest[:12]}"
    if damage := max(world.gather(damage)):
        raise _broken(place, f"found damage: {damage}")


def _broken(place: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{place}: {what}; expected a whole checkpoint of this run; remove that folder to resume from the one before it"
    )


def _digest(state: dict[str, Any]) -> str:
    """Return the digest of a state as JSON holds it, so that a changed digit is detected."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return all tensors of a checkpoint by name: `model.<parameter>` and `optimizer.<parameter>.<part>`."""
    tensors = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            tensors[f"model.{name}"] = p.detach()
            tensors |= {f"optimizer.{name}.{part}": value for part, value in optimizer.state.get(p, {}).items()}
    return tensors


@contextmanager
def _unwrapped_errors() -> Iterator[None]:
    """Raise the cause of torch's wrapped errors, interrupts included. Hide its warning about a single process."""
    from torch.distributed.checkpoint.api import CheckpointException

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from None

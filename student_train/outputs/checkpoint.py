"""Checkpoints that are complete or absent, and a plain model folder at the end.

`OUT/checkpoints/step-N/` holds what torch's distributed checkpoint writes (`.metadata`, `__R_0.distcp`: parameters that
train and the optimiser's state, float32, each rank's part in its own file) and `state.json` (global: step, identity of
the run, tokens so far, held-out figures before training, the other files' digests; no rank, no world size, no random
state). Another number of ranks can read it. It is written under a temporary name beside its place, synced and renamed,
so a name `step-N` means complete. A crash loses at most the steps since the newest one.

With several ranks OUT must be a folder that all of them see. NOT safe with files of strangers: `.metadata` is a pickle,
which is why the folder at the end is safetensors.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from student_train.errors import CheckpointError

STATE_VERSION = 2
_NAME = re.compile(r"step-(\d+)")
_TEMPORARY = ".incomplete-"


def steps(out: Path) -> list[int]:
    """Return the steps of complete checkpoints, ascending."""
    folder = out / "checkpoints"
    names = (_NAME.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match[1]) for match in names if match)


def path_of(out: Path, *, step: int) -> Path:
    """Return where the checkpoint of `step` lies or would lie."""
    return out / "checkpoints" / f"step-{step}"


def save(out: Path, *, model: Any, optimizer: Any, state: dict[str, Any], keep: int, world: Any = None) -> Path:
    """Write the checkpoint of state["step"], then drop all but the newest `keep`. A collective.

    Each rank of `world` (`parallel.World`; None for one process) writes its own part; the one that leads gives the
    whole its name when all are done.

    Raises: CheckpointError where the disk is full; older checkpoints are as they were.
    """
    import torch.distributed.checkpoint as dcp

    leads, alone = world is None or world.leads, world is None or world.size == 1
    place = path_of(out, step=state["step"])
    temporary = place.with_name(_TEMPORARY + place.name)
    there = place.is_dir()
    if there if alone else world.gather(there)[0]:
        return place
    tensors = _tensors(model, optimizer)
    needed = sum(t.numel() * t.element_size() for t in tensors.values())
    if leads:
        require_room(out, needed)
        shutil.rmtree(temporary, ignore_errors=True)
    with _FullDisk(out, needed, temporary):
        if leads:
            temporary.mkdir(parents=True)
        if not alone:
            world.wait()
        with _plain_errors():
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary), no_dist=alone)
        names = sorted(temporary.glob(f"__{0 if alone else world.rank}_*"))
        mine = {path.name: _sha256(path) for path in names}
        files = {k: v for part in ([mine] if alone else world.gather(mine)) for k, v in part.items()}
        if not leads:
            return place
        files[".metadata"] = _sha256(temporary / ".metadata")
        body = {**state, "version": STATE_VERSION, "files": files}
        text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        for entry in temporary.iterdir():
            _sync(entry)
        _sync(temporary)
        temporary.rename(place)
        _sync(place.parent)
    for old in steps(out)[:-keep]:
        shutil.rmtree(path_of(out, step=old))
    return place


def read_state(out: Path, *, step: int) -> dict[str, Any] | None:
    """Return the state of a checkpoint, None where it is cut or damaged.

    Raises: CheckpointError for one of another version.
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


def load(out: Path, *, step: int, model: Any, optimizer: Any, world: Any = None) -> None:
    """Put the parameters and the optimiser's state of a checkpoint into `model` and `optimizer`. A collective.

    Raises: CheckpointError, naming the folder, for one that is damaged.
    """
    import torch
    import torch.distributed.checkpoint as dcp

    place = path_of(out, step=step)
    state_of = read_state(out, step=step)
    if state_of is None:
        raise _broken(place, "found damage: state.json is cut or missing")
    _require_sound(place, state_of["files"], world)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    try:
        reader = dcp.FileSystemReader(place)
        stored = reader.read_metadata().state_dict_metadata
        tensors = {f"model.{name}": p.detach() for name, p in parameters.items()}  # read into, in place
        state: dict[Any, dict[str, Any]] = {}
        for key, about in stored.items():
            if key.startswith("optimizer."):
                name, _, part = key.removeprefix("optimizer.").rpartition(".")
                p = parameters[name]
                # Moments are split as their parameter is; counters are whole on every rank, and on the CPU.
                like = torch.zeros_like(p) if about.size == p.shape else torch.zeros(about.size)
                tensors[key] = state.setdefault(p, {})[part] = like.detach()
        with _plain_errors():
            dcp.load(tensors, storage_reader=reader, no_dist=world is None or world.size == 1)
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, UnpicklingError) as error:
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise _broken(place, f"does not load ({said[0]})") from None
    # The settings of the groups come from the configuration, which is the run's own.
    optimizer.state.clear()
    optimizer.state.update(state)


def _require_sound(place: Path, files: dict[str, str], world: Any) -> None:
    """Raise CheckpointError unless every file hashes to what it was written with. Ranks share the files out."""
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    bad = ""
    for name, digest in sorted(files.items())[rank::size]:
        path = place / name
        if not path.is_file():
            bad = f"{name} is missing"
        elif (found := _sha256(path)) != digest:
            bad = f"{name} has sha256 {found[:12]}, it was written with {digest[:12]}"
    bad = max(world.gather(bad)) if size > 1 else bad
    if bad:
        raise _broken(place, f"found damage: {bad}")


def _broken(place: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{place}: {what}; expected a whole checkpoint of this run; remove that folder to go on from the one before it"
    )


def _digest(state: dict[str, Any]) -> str:
    """Return the digest of a state as JSON holds it, so that a flipped digit is seen."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return all tensors of a checkpoint by name: `model.<parameter>` and `optimizer.<parameter>.<part>`."""
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            found[f"model.{name}"] = p.detach()
            found |= {f"optimizer.{name}.{part}": value for part, value in optimizer.state.get(p, {}).items()}
    return found


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what went wrong itself: torch wraps everything, an interrupt too. No warning that there are no ranks."""
    from torch.distributed.checkpoint.api import CheckpointException

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from None


def remove_incomplete(out: Path) -> None:
    """Remove what a crash while writing left behind."""
    for folder in (out, out / "checkpoints"):
        for entry in folder.glob(_TEMPORARY + "*") if folder.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises: CheckpointError where the disk is full."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all. Raises: CheckpointError where the disk is full."""
    temporary = path.with_name(_TEMPORARY + path.name)
    with _FullDisk(path.parent, len(content), temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        _sync(temporary)
        temporary.rename(path)


def require_room(out: Path, needed: int) -> None:
    """Raise CheckpointError if the disk that holds `out` has fewer than `needed` bytes free."""
    place = out
    while not place.exists():
        place = place.absolute().parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise _no_room(out, needed, free)


class _FullDisk:
    """Turn "no space left" of any writer into a CheckpointError, and remove what was half written."""

    def __init__(self, out: Path, needed: int, temporary: Path) -> None:
        self._out, self._needed, self._temporary = out, needed, temporary

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        free = shutil.disk_usage(self._out).free if self._out.exists() else self._needed
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            self._temporary.unlink(missing_ok=True)
        # safetensors and torch wrap the system's error in kinds of their own. Its text survives, but where torch's zip
        # writer trips over its own short write.
        told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        told = told or any(text in str(error) for text in ("No space left", "os error 28"))
        if told or ("inline_container" in str(error) and free < self._needed):
            raise _no_room(self._out, self._needed, None) from error


def _no_room(out: Path, needed: int, free: int | None) -> CheckpointError:
    found = "a full disk" if free is None else f"{_bytes(free)} free on its disk"
    return CheckpointError(
        f"{out}: found {found}, expected {_bytes(needed)} for what is written next; make room, then run the same "
        "command to go on"
    )


def _bytes(number: int) -> str:
    """Return a size in the largest unit of which it has at least ten: 12.5 MB, 980,000 bytes."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if number >= 10 * size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,} bytes"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

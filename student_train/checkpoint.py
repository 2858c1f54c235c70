"""How do we stop and go on? Checkpoints that are complete or absent, and a plain folder at the end.

`OUT/checkpoints/step-N/` holds `model.safetensors` (every parameter, float32), `optimizer.safetensors` and
`state.json` (global: step, identity of the run, tokens so far, held-out figures before training; no rank, no
world size, no random state). It is written under a temporary name beside its place, synced and renamed, so a
name `step-N` means complete. A crash loses at most the steps since the newest one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from student_train.errors import CheckpointError

STATE_VERSION = 1
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


def save(out: Path, *, model: Any, optimizer: Any, state: dict[str, Any], keep: int, leads: bool = True) -> Path:
    """Write the checkpoint of state["step"], then drop all but the newest `keep`.

    All ranks gather their parts; the one that `leads` writes.

    Raises: CheckpointError where the disk is full; older checkpoints are as they were.
    """
    import safetensors.torch

    from student_train.parallel import whole

    place = path_of(out, step=state["step"])
    tensors = {name: whole(p) for name, p in model.named_parameters() if p.requires_grad}
    kept = {f"{i}.{key}": whole(t) for i, kept in optimizer.state_dict()["state"].items() for key, t in kept.items()}
    if not leads or place.is_dir():
        return place
    needed = 3 * sum(t.numel() * t.element_size() for t in tensors.values())
    require_room(out, needed)
    temporary = place.with_name(_TEMPORARY + place.name)
    with _FullDisk(out, needed, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        safetensors.torch.save_file(tensors, temporary / "model.safetensors")
        safetensors.torch.save_file(kept, temporary / "optimizer.safetensors")
        text = json.dumps({"version": STATE_VERSION, **state}, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        for entry in temporary.iterdir():
            _sync(entry)
        _sync(temporary)
        temporary.rename(place)
        _sync(place.parent)
    for old in steps(out)[:-keep]:
        shutil.rmtree(path_of(out, step=old))
    return place


def read_state(out: Path, *, step: int) -> dict[str, Any]:
    """Return the state of a checkpoint. Raises: CheckpointError for one of a newer version."""
    state = json.loads((path_of(out, step=step) / "state.json").read_text(encoding="utf-8"))
    if state["version"] != STATE_VERSION:
        raise CheckpointError(
            f"{path_of(out, step=step)}: found checkpoint version {state['version']}, expected {STATE_VERSION}; use "
            "the version of teacherless that wrote it, or another --out"
        )
    return dict(state)


def load(out: Path, *, step: int, model: Any, optimizer: Any) -> None:
    """Put the parameters and the optimiser's state of a checkpoint into `model` and `optimizer`."""
    import safetensors.torch
    import torch

    from student_train.parallel import like

    place = path_of(out, step=step)
    tensors = safetensors.torch.load_file(place / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.copy_(like(tensors[name], parameter))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in safetensors.torch.load_file(place / "optimizer.safetensors").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = like(tensor, parameters[int(number)])
    # The settings of the groups come from the configuration, which is the run's own.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def remove_incomplete(out: Path) -> None:
    """Remove what a crash while writing left behind."""
    for folder in (out, out / "checkpoints"):
        for entry in folder.glob(_TEMPORARY + "*") if folder.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def export(out: Path, *, model: Any, tokenizer_dir: Path, dtype: str) -> None:
    """Make `out` an ordinary transformers folder: weights, configuration, tokenizer. File by file, each whole.

    Raises: CheckpointError where the disk is full.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = model.to(dtype=getattr(torch, dtype))
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    require_room(out, needed)
    temporary = out / (_TEMPORARY + "export")
    with _FullDisk(out, needed, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for entry in tokenizer_files(tokenizer_dir):
            shutil.copyfile(entry, temporary / entry.name)
        model.save_pretrained(temporary)
        mode = (temporary / "config.json").stat().st_mode
        for entry in sorted(temporary.iterdir()):
            entry.chmod(mode)  # safetensors gives its files to their owner alone
            _sync(entry)
            entry.rename(out / entry.name)
        temporary.rmdir()
        _sync(out)


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that make up its tokenizer."""
    names = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name.startswith(names))


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises: CheckpointError where the disk is full."""
    temporary = path.with_name(_TEMPORARY + path.name)
    with _FullDisk(path.parent, len(text), temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
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
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            self._temporary.unlink(missing_ok=True)
        # safetensors wraps the system's error in a kind of its own; its text survives.
        told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if told or "No space left" in str(error) or "os error 28" in str(error):
            raise _no_room(self._out, self._needed, None) from error


def _no_room(out: Path, needed: int, free: int | None) -> CheckpointError:
    found = "a full disk" if free is None else f"{free / 2**20:.0f} MiB free"
    return CheckpointError(
        f"{out}: found {found}, expected {needed / 2**20:.0f} MiB for what is written next; make room, then run the "
        "same command to go on"
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

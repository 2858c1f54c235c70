"""Room on disk, and what a crash leaves behind. Small files are written by `shards.storage.atomic`."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.storage.atomic import sync_path
from shards.storage.temp_files import remove_leftovers
from student_train.errors import CheckpointError

TEMPORARY = ".incomplete-"
"""Prefix of checkpoints and models that are being written."""


def remove_incomplete(out: Path) -> None:
    """Remove files and folders that a crash left half written."""
    for folder in (out, out / "checkpoints"):
        for entry in folder.glob(TEMPORARY + "*") if folder.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    remove_leftovers(out)


def settle_files(folder: Path) -> list[Path]:
    """Give the files of a model folder the mode of its configuration, sync them, and return them by name.

    safetensors makes its files readable by their owner only.
    """
    mode = (folder / "config.json").stat().st_mode
    files = sorted(folder.iterdir())
    for path in files:
        path.chmod(mode)
        sync_path(path)
    return files


def require_room(out: Path, needed: int) -> None:
    """Check the free space of a disk.

    Args:
        out: A folder on the disk, which need not exist.
        needed: Bytes that are written next.

    Raises:
        CheckpointError: There is less room.
    """
    folder = out
    while not folder.exists():
        folder = folder.absolute().parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_room(out, needed, f"{_bytes(free)} free on its disk")


@contextmanager
def full_disk_errors(out: Path, needed: int, temporary: Path) -> Iterator[None]:
    """Turn "no space left" of any writer into a CheckpointError. Remove `temporary` after any error.

    Args:
        out: Folder that is written to.
        needed: Bytes that are written.
        temporary: File or folder that is half written after an error.

    Raises:
        CheckpointError: The disk is full.
    """
    try:
        yield
    except BaseException as error:
        free = shutil.disk_usage(out).free if out.exists() else needed
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if _is_full_disk(error) or ("inline_container" in str(error) and free < needed):
            raise _no_room(out, needed, "a full disk") from error
        raise


def _is_full_disk(error: BaseException) -> bool:
    """Return whether an error says that the disk is full.

    safetensors and torch wrap the system's error in types of their own, and keep its text. torch's zip writer is an
    exception: it fails at its own check after a short write, with the name of its source file `inline_container`.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error) for text in ("No space left", "os error 28"))


def _no_room(out: Path, needed: int, found: str) -> CheckpointError:
    return CheckpointError(
        f"{out}: found {found}, expected {_bytes(needed)} for what is written next; make room, then run the same "
        "command to resume"
    )


def _bytes(number: int) -> str:
    """Return a size in the largest unit of which it has at least ten: 12.5 MB, 980,000 bytes."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if number >= 10 * size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,} bytes"

"""Names of output files, checks against overwriting inputs, and the lock on a result."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.outputs.files import is_special


def samples_folder(samples: Path) -> Path:
    """Return the default output folder for samples generated elsewhere: beside them, under their name.

    `a.jsonl` gives `a-evalkit`, any other name `a` gives `a.evalkit`, so no two files share a folder.
    """
    if str(samples) == "-" or samples.parts[:2] in (("/", "dev"), ("/", "proc")):
        return Path("stdin-evalkit")
    name = samples.resolve().name if samples.name in ("", "..") else samples.name
    return samples.parent / (f"{name.removesuffix('.jsonl')}-evalkit" if name.endswith(".jsonl") else f"{name}.evalkit")


def beside(result: Path, suffix: str) -> Path:
    """Return the path beside a result that differs in its suffix: `temp0.2.json` gives `temp0.2.html`."""
    return result.with_name(result.name.removesuffix(".json") + suffix)


def refuse_overlap(outputs: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Refuse outputs that are inputs or one another, by any name: relative, linked, or in other case.

    Args:
        outputs: Files to write, by the option that names them.
        inputs: Files to read.

    Raises:
        EvalError: Two of them are the same file.
    """
    input_paths = {_identity(path): path for path in inputs}
    output_options: dict[object, str] = {}
    for option, path in outputs.items():
        if path is None or is_special(path):
            continue
        identity = _identity(path)
        if identity in input_paths:
            raise EvalError(f"{option} {path}: is an input ({input_paths[identity]}); name another file to write to")
        if identity in output_options:
            raise EvalError(f"{option} {path}: is also the output of {output_options[identity]}; name two files")
        output_options[identity] = option


def _identity(path: Path) -> object:
    """Return a value that is equal for two names of one file, also of a file that does not exist yet."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def locked(result: Path) -> Iterator[None]:
    """Hold a lock on the output `result`, by a lock file beside it that is removed at the end.

    The kernel releases the lock of a process that dies, so a stale lock file does not block later runs.

    Raises:
        EvalError: Another process holds the lock.
    """
    path = result.with_name(f".{result.name}.lock")
    try:
        descriptor = _lock(path)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(OSError):
            holder = path.read_text(errors="replace").strip()
        raise EvalError(
            f"{result}: another evalkit writes this file ({holder or 'unknown process'}); "
            "wait for it, or name another --json or --out"
        ) from None
    except OSError as error:
        raise EvalError(f"{result}: cannot be locked ({error.strerror}); name a file in a writable folder") from error
    try:
        with contextlib.suppress(OSError):
            os.write(
                descriptor, f"process {os.getpid()} on {os.uname().nodename}, since {time.strftime('%H:%M')}".encode()
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Open and lock the file at `path`; retry if another file has replaced it meanwhile.

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):  # its holder has just removed it
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    os.truncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

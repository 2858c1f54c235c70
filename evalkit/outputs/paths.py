"""Names of what a run writes, and the checks on them: no output is an input, one run at a time on one output."""

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
    """Return the folder of the result of samples made elsewhere: beside them, under their name.

    `a.jsonl` -> `a-evalkit`, any other name `a` -> `a.evalkit`, so that no two share a folder.
    """
    if str(samples) == "-" or samples.parts[:2] in (("/", "dev"), ("/", "proc")):
        return Path("stdin-evalkit")
    name = samples.resolve().name if samples.name in ("", "..") else samples.name
    return samples.parent / (f"{name.removesuffix('.jsonl')}-evalkit" if name.endswith(".jsonl") else f"{name}.evalkit")


def beside(result: Path, suffix: str) -> Path:
    """Return the file beside a result that differs from it in its suffix: `temp0.2.json` -> `temp0.2.html`."""
    return result.with_name(result.name.removesuffix(".json") + suffix)


def refuse_overlap(outputs: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Refuse outputs that are inputs or one another, by whatever name: relative, linked, in other case.

    Args:
        outputs: What is written, by the option that names it.
        inputs: What is read.

    Raises:
        EvalError: two of them are the same file.
    """
    read = {_identity(path): path for path in inputs}
    written: dict[object, str] = {}
    for option, path in outputs.items():
        if path is None or is_special(path):
            continue
        identity = _identity(path)
        if identity in read:
            raise EvalError(f"{option} {path}: is what is read ({read[identity]}); name another file to write to")
        if identity in written:
            raise EvalError(f"{option} {path}: is also what {written[identity]} names; name two files")
        written[identity] = option


def _identity(path: Path) -> object:
    """Return what is equal for two names of one file, or of one file that is not there yet."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def claimed(result: Path) -> Iterator[None]:
    """Hold the output `result` for this process, by a lock file beside it that goes at the end.

    The kernel releases the lock of a process that dies, so a lock file that was left behind is no hindrance.

    Raises:
        EvalError: another process holds it.
    """
    path = result.with_name(f".{result.name}.lock")
    try:
        descriptor = _lock(path)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(OSError):
            holder = path.read_text(errors="replace").strip()
        raise EvalError(
            f"{result}: another evalkit writes there ({holder or 'it does not say which'}); "
            "wait for it, or name another --json or --out"
        ) from None
    except OSError as error:
        raise EvalError(f"{result}: cannot be claimed ({error.strerror}); name a file in a writable folder") from error
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
    """Open and lock the file at `path`, which must still be the one there when the lock is held.

    Raises:
        BlockingIOError: another process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):  # its holder ended just now and took it away
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    os.truncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

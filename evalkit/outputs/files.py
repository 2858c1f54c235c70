"""Write files complete or not at all, and read JSON.

A result is written under a temporary name in its own folder, flushed to the disk and renamed. A reader never
sees half a file, and a failed run leaves nothing behind. A link is followed; a pipe or device is written to as it
is. Samples are the one exception: they grow line by line on purpose (`evalkit/samples/sample_file.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError


def is_special(path: Path) -> bool:
    """Say whether `path` is neither a file nor a folder, but a pipe, a terminal or a device such as /dev/null."""
    if path.parts[:2] in (
        ("/", "dev"),
        ("/", "proc"),
    ):  # /dev/stdout may lead to a file: it is still not ours to replace
        return path.exists() and not path.is_dir()
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step: temporary name, fsync, rename. Lone surrogates are escaped.

    Raises:
        EvalError: the folder cannot be made or written to.
    """
    temporary = None
    try:
        if is_special(path):
            with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; a result is meant to be read by others
        os.replace(temporary, target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _unwritable(path: Path, error: OSError) -> EvalError:
    return EvalError(f"{path}: cannot be written ({error.strerror}); name a file in a writable folder")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; see `write_text` for the guarantees and errors."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n")


def require_writable(path: Path) -> None:
    """Fail now, not after an hour of generation, when `path` cannot be written later.

    Raises:
        EvalError: its folder cannot be made or written to, or `path` is itself a folder.
    """
    if path.is_dir():
        raise EvalError(f"{path}: is a folder, expected the name of a file; add a file name to it")
    if is_special(path):
        return
    try:
        folder = Path(os.path.realpath(path)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.", suffix=".tmp"):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def read_json(path: Path, *, what: str) -> Any:
    """Read one JSON file; `what` says in the error what it was meant to be.

    Raises:
        EvalError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error
    except RecursionError:
        raise EvalError(f"{path}: is nested too deeply; expected {what}") from None
    except ValueError as error:
        raise EvalError(f"{path}: is not JSON ({str(error)[:200]}); expected {what}") from error


def sha256_file(path: Path) -> str:
    """Return the file's sha256 as hex. Reads it all: about a second per gigabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the sha256 of the text's UTF-8 bytes as hex; lone surrogates are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

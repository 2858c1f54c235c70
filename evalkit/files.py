"""How does a file come to exist? Complete or not at all.

A result is written under a temporary name in its own folder, flushed to the disk and renamed. A reader never
sees half a file, and a failed run leaves nothing behind. Samples are the one exception: they grow line by
line on purpose (`evalkit/samples.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step: temporary name, fsync, rename.

    Raises:
        EvalError: the folder cannot be made or written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; a result is meant to be read by others
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise EvalError(f"{path}: cannot be written ({error.strerror}); name a file in a writable folder") from error


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); name a file in a writable folder") from error


def read_json(path: Path, *, what: str) -> Any:
    """Read one JSON file; `what` says in the error what it was meant to be.

    Raises:
        EvalError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error
    except ValueError as error:
        raise EvalError(f"{path}: is not JSON ({error}); expected {what}") from error


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

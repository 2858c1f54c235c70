"""Write files atomically, read JSON, and hash content.

A file is written under a temporary name in its own folder, flushed to the disk and renamed. A reader never sees half a
file, and a failed run leaves nothing behind. A symbolic link is followed. Pipes and devices are written to directly.
Sample files are the exception: they grow line by line (`evalkit/samples/sample_file.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, Any

from evalkit.errors import EvalError


def is_special(path: Path) -> bool:
    """Return whether `path` is neither a file nor a folder, but a pipe, a terminal or a device such as /dev/null."""
    if path.parts[:2] in (("/", "dev"), ("/", "proc")):
        # /dev/stdout may lead to a regular file, which must not be replaced.
        return path.exists() and not path.is_dir()
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: temporary name, fsync, rename.

    Raises:
        OSError: The folder cannot be created or written to.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp creates 0600, but others may read a result
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically unless `path` is a pipe or device. Lone surrogates are escaped.

    Raises:
        EvalError: The folder cannot be created or written to.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        if is_special(path):
            with path.open("ab") as stream:
                stream.write(content)
        else:
            replace_file(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_all(stream: IO[bytes], content: bytes) -> None:
    """Write all of `content` to a stream without a buffer, which may take only a part at a time.

    Raises:
        OSError: The disk is full, for example. A part of the content may be in the file.
    """
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]


def _unwritable(path: Path, error: OSError) -> EvalError:
    return EvalError(f"{path}: cannot be written ({error.strerror}); name a file in a writable folder")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; see `write_text` for guarantees and errors."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n")


def require_writable(path: Path) -> None:
    """Check before a long run that `path` can be written at its end.

    Raises:
        EvalError: The folder of `path` cannot be created or written to, or `path` is itself a folder.
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
    """Read one JSON file.

    Args:
        path: The file.
        what: Description of the expected content, for errors.

    Raises:
        EvalError: The file is missing, unreadable or not JSON.
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
    """Return the file's sha256 as hex. Reads the whole file: about a second per gigabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the sha256 of the text's UTF-8 bytes as hex; lone surrogates are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""Read sample files: JSONL, JSON arrays and EvalPlus folders, plain or gzipped, from files and pipes.

A row has a `task_id`, and `completion` or `solution`. A row that cannot be read is an error that names file and line.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_file

EXPECTED = "expected a JSON object with task_id and completion or solution"
"""End of the errors about a row."""
_GZIP = b"\x1f\x8b"
_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks of UTF-32 and UTF-16; those of UTF-32 first, because one begins like one of UTF-16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenFile:
    """Samples generated elsewhere, in a form that can be read once for each benchmark."""

    label: str
    """Path as the user gave it, or `standard input`."""
    path: Path
    """A file or folder; for a pipe, a temporary copy."""
    sha256: str
    """Digest of the bytes of a file, or of the names and digests of a folder's programs."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a result records of the samples."""
        return {"path": self.label, "sha256": self.sha256}


@contextlib.contextmanager
def open_given(path: Path) -> Iterator[GivenFile]:
    """Open the samples at `path`, a file or folder; `-` is standard input. A pipe is copied to a temporary file.

    Raises:
        EvalError: The path does not exist or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            given = _given_file(path, stack)
        except FileNotFoundError as error:
            raise EvalError(f"{path}: no such file; expected samples as JSONL") from error
        except OSError as error:
            raise EvalError(f"{path}: cannot be read ({error.strerror or error}); expected samples as JSONL") from error
        yield given


def _given_file(path: Path, stack: contextlib.ExitStack) -> GivenFile:
    if path.is_dir():
        return GivenFile(label=str(path), path=path, sha256=_sha256_folder(path))
    if str(path) != "-" and stat.S_ISREG(path.stat().st_mode):
        return GivenFile(label=str(path), path=path, sha256=sha256_file(path))
    if str(path) != "-":
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
    elif sys.stdin is not None:
        stream = sys.stdin.buffer
    else:
        raise EvalError("standard input is closed; expected samples as JSONL")
    if stream.isatty():
        raise EvalError(f"{path}: is a terminal; expected samples as JSONL from a pipe or a file")
    copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="evalkit-samples-"))  # noqa: SIM115  # closed by the stack
    shutil.copyfileobj(stream, copy)
    copy.flush()
    label = "standard input" if str(path) == "-" else str(path)
    return GivenFile(label=label, path=Path(copy.name), sha256=sha256_file(Path(copy.name)))


def rows(given: GivenFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, fields) of each sample; the place names file and line in errors.

    Raises:
        EvalError: A row cannot be read, or has neither a task_id nor a list of samples (`samples/listed.py`).
    """
    return _folder_rows(given) if given.path.is_dir() else _file_rows(given)


def _file_rows(given: GivenFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, fields) of each sample in a JSONL file or JSON array."""
    lines = _lines(given)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        text = first[1] + "".join(line for _, line in lines)
        items = _parse(text, given.label)
        if not isinstance(items, list):
            raise EvalError(f"{given.label}: is no array of samples; {EXPECTED}")
        for number, item in enumerate(items, 1):
            yield f"{given.label} item {number}", _fields(item, f"{given.label} item {number}")
        return
    for number, line in itertools.chain([first], lines):
        if line.strip():
            place = f"{given.label} line {number}"
            yield place, _fields(_parse(line, place), place)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise EvalError(f"{place}: is nested too deeply; {EXPECTED}") from None
    except ValueError as error:
        raise EvalError(f"{place}: is not JSON ({str(error)[:200]}); {EXPECTED}") from None


def _fields(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or (value.get("task_id") is None and "samples" not in value):
        raise EvalError(f"{place}: has no task_id; {EXPECTED}")
    return value


def _lines(given: GivenFile) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line, decompressed and decoded, without a byte order mark."""
    number = 0
    try:
        with given.path.open("rb") as file:
            packed = file.peek(2)[:2] == _GZIP
            stream: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=file) if packed else file
            mark = next((mark for mark in _WIDE_MARKS if stream.peek(4).startswith(mark)), None)
            if mark is not None:
                encoding = "utf-32" if len(mark) == 4 else "utf-16"
                yield from enumerate(io.TextIOWrapper(stream, encoding=encoding), 1)
                return
            for line in stream:
                text = line.decode("utf-8-sig" if number == 0 else "utf-8")
                number += 1
                yield number, text
    except EOFError:
        raise EvalError(
            f"{given.label} line {number + 1}: is cut short, its gzip stream has no end; get it again"
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise EvalError(
            f"{given.label} line {number + 1}: its gzip stream is damaged ({error}); get it again"
        ) from None
    except OSError as error:
        raise EvalError(f"{given.label} line {number + 1}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise EvalError(
            f"{given.label} line {number + 1}: is not UTF-8 text ({error.reason}); expected samples as JSONL"
        ) from error


def _folder_rows(given: GivenFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file, fields) of an EvalPlus folder: a subfolder per task, `HumanEval_0`, with a program per sample."""
    for path in program_files(given.path):
        try:
            solution = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise EvalError(f"{path}: is not UTF-8 text ({error.reason}); expected a program") from error
        yield str(path), {"task_id": path.parent.name.replace("_", "/"), "solution": solution}


def program_files(folder: Path) -> list[Path]:
    """Return the programs of an EvalPlus folder, in the order of tasks and samples.

    Raises:
        EvalError: The folder holds none.
    """
    paths = [path for path in folder.glob("*/*.py") if path.is_file() and not path.parent.name.startswith((".", "__"))]
    if not paths:
        raise EvalError(
            f"{folder}: holds no samples; expected a JSONL file, or a folder per task with programs (HumanEval_0/0.py)"
        )
    return sorted(paths, key=lambda path: [_natural(part) for part in path.parts[-2:]])


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `10.py` after `9.py`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _sha256_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in program_files(folder):
        digest.update(f"{path.parent.name}/{path.name}\n{sha256_file(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

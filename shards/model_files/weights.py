"""Identity and soundness of a model folder's weights, read from the files alone: no torch, no transformers.

The identity is a digest of the weight files. Folders are never told apart by their names. Large files are hashed once:
the digest is kept in the user's cache folder, under the file's place, size, times and inode.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.format.schema import canonical_json
from shards.storage.atomic import file_sha256, write_atomic
from shards.storage.cache_dirs import cache_dir

_REMEMBERED_FROM = 64_000_000
"""Bytes from which a file's digest is worth remembering."""
_SCANNED_AT_MOST = 20_000_000_000
"""Bytes of weights up to which every value is looked at: more would take minutes before a teacher loads."""
_BLOCK_VALUES = 1 << 24
_INDEX = "model.safetensors.index.json"
_CONFIG_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"}
"""Keys of config.json that change no output."""
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A tensor in a safetensors file."""

    name: str
    dtype: str
    """As safetensors writes it: F32, BF16, ..."""
    shape: tuple[int, ...]
    offset: int
    """First byte in the file."""
    length: int
    """Bytes."""


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, sorted by name; [] where there are none."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def weights_sha256(folder: Path) -> str:
    """Return the digest of a folder's weights: the sha256 of the sorted lines "<sha256>  <name>" of its files.

    Raises:
        ShardError: Where there are no weights, or a file cannot be read.
    """
    files = weight_files(folder)
    if not files:
        raise ShardError(f"{folder}: found no *.safetensors, expected a transformers model folder")
    text = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def config_sha256(folder: Path) -> str:
    """Return the digest of a folder's config.json, without the keys that change no output. Raises ShardError."""
    try:
        config = dict(json.loads((folder / "config.json").read_bytes()))
        kept = {key: value for key, value in config.items() if key not in _CONFIG_NOISE}
        return hashlib.sha256(canonical_json(kept)).hexdigest()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ShardError(f"{folder}: no readable config.json ({error}); expected a transformers model folder") from None


def read_header(file: Path) -> list[Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ShardError: Where the file is cut, damaged or cannot be read.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if 2 <= length <= size - 8 else None
    except OSError as error:
        raise _damaged(file, f"cannot read it ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _damaged(file, f"found {size:,} bytes without a safetensors header")
    start = 8 + length
    try:
        tensors = [
            Tensor(
                name=name,
                dtype=str(about["dtype"]),
                shape=tuple(int(n) for n in about["shape"]),
                offset=start + int(about["data_offsets"][0]),
                length=int(about["data_offsets"][1]) - int(about["data_offsets"][0]),
            )
            for name, about in header.items()
            if name != "__metadata__"
        ]
    except (KeyError, TypeError, ValueError, IndexError):
        raise _damaged(file, "found a damaged safetensors header") from None
    end = max((t.offset + t.length for t in tensors), default=start)
    if size < end:
        raise _damaged(file, f"found {size:,} bytes, its header says {end:,}: the file is cut")
    for tensor in tensors:
        width = _DTYPE_BYTES.get(tensor.dtype)
        if tensor.length < 0 or (width is not None and tensor.length != width * math.prod(tensor.shape)):
            raise _damaged(file, f"tensor {tensor.name} has {tensor.length:,} bytes for shape {list(tensor.shape)}")
    return tensors


def require_sound(folder: Path) -> None:
    """Raise ShardError where a folder's weights are incomplete, cut, or hold NaN.

    Values are looked at in folders of up to 20 GB. Folders with other weights than safetensors are not looked into.
    """
    files = sorted(folder.glob("*.safetensors"))
    names = {file.name for file in files}
    index = folder / _INDEX
    if index.is_file():
        try:
            listed = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(index, f"not a readable index ({error!r})") from None
        missing = sorted(listed - names)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise _damaged(folder, f"found no {missing[0]}{more}, which {_INDEX} lists")
    elif "model.safetensors" not in names and any(re.search(r"-of-\d+\.safetensors$", name) for name in names):
        raise _damaged(folder, f"found parts of weights ({min(names)}), but no {_INDEX}, which lists them")
    tensors = {file: read_header(file) for file in files}
    if sum(file.stat().st_size for file in files) > _SCANNED_AT_MOST:
        return
    for file, found in tensors.items():
        if not _remembered(file).get("no_nan"):
            _refuse_nan(file, found)
            _remember(file, no_nan=True)


def _refuse_nan(file: Path, tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if tensor.dtype in _DTYPES:
            bad = sum(_count_nan(block, tensor.dtype) for block in _blocks(file, tensor))
            if bad:
                raise _damaged(file, f"tensor {tensor.name} has {bad:,} values that are NaN")


def _blocks(file: Path, tensor: Tensor) -> Iterator[Any]:
    count = tensor.length // _DTYPE_BYTES[tensor.dtype]
    if count == 0:
        return
    values = np.memmap(file, dtype=_DTYPES[tensor.dtype], mode="r", offset=tensor.offset, shape=(count,))
    for begin in range(0, count, _BLOCK_VALUES):
        yield values[begin : begin + _BLOCK_VALUES]


def _count_nan(values: Any, dtype: str) -> int:
    if dtype == "BF16":  # above infinity, which is all ones in the exponent
        return int(np.count_nonzero((values & np.uint16(0x7FFF)) > np.uint16(0x7F80)))
    return int(np.count_nonzero(np.isnan(values)))


def _sha256(file: Path) -> str:
    # A hub cache names large files by their sha256: hashing 140 GB again would tell nothing new.
    blob = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return blob
    try:
        known = _remembered(file).get("sha256")
        if isinstance(known, str):
            return known
        found = file_sha256(file)
    except OSError as error:
        raise _damaged(file, f"cannot read it ({error.strerror or error})") from None
    _remember(file, sha256=found)
    return found


def _note(file: Path) -> tuple[Path, dict[str, Any]]:
    """Return where facts about a file are kept, and what tells this content from another at the same place."""
    about = file.stat()
    key = {"size": about.st_size, "mtime": about.st_mtime_ns, "ctime": about.st_ctime_ns, "inode": about.st_ino}
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
    return cache_dir() / "digests" / f"{name}.json", key


def _remembered(file: Path) -> dict[str, Any]:
    """Return what is known of a file: its sha256, and that it holds no NaN. {} of a small or changed one."""
    path, key = _note(file)
    if key["size"] < _REMEMBERED_FROM:
        return {}
    try:
        note = json.loads(path.read_bytes())
        return dict(note["facts"]) if note["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(file: Path, **facts: Any) -> None:
    path, key = _note(file)
    if key["size"] >= _REMEMBERED_FROM:
        with contextlib.suppress(OSError, ShardError):  # a cache: without it the file is read again
            write_atomic(path, canonical_json({"key": key, "facts": {**_remembered(file), **facts}}))


def _damaged(place: Path, what: str) -> ShardError:
    return ShardError(f"{place}: {what}; expected whole weights: fetch or save the model again")

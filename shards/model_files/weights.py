"""Digests of a model's weights, and checks that the weight files are complete and finite.

Only the files are read: neither torch nor transformers is needed. The identity of a model is the digest of its weight
files, never the name of its directory. Large files are hashed once: the digest is kept in the user's cache, under the
path, size, times and inode of the file.
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
"""Size in bytes from which facts about a file are kept in the user's cache."""
_SCANNED_AT_MOST = 20_000_000_000
"""Bytes of weights up to which every value is checked. More would take minutes before a teacher loads."""
_BLOCK_VALUES = 1 << 24
_INDEX = "model.safetensors.index.json"
_CONFIG_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"}
"""Keys of config.json that change no output."""
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorHeader:
    """A tensor in the header of a safetensors file."""

    name: str
    dtype: str
    """Name in safetensors: F32, BF16, ..."""
    shape: tuple[int, ...]
    offset: int
    """First byte in the file."""
    length: int
    """Number of bytes."""


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights, sorted by name; [] if there are none."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def weights_sha256(folder: Path) -> str:
    """Return the digest of a model's weights: the sha256 of the sorted lines "<sha256>  <name>" of its files, hex.

    Raises:
        ShardError: If there are no weights, or a file cannot be read.
    """
    files = weight_files(folder)
    if not files:
        raise ShardError(f"{folder}: found no *.safetensors, expected a transformers model folder")
    text = "".join(f"{_file_digest(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def config_sha256(folder: Path) -> str:
    """Return the digest of a model's config.json, without the keys that change no output, hex.

    Raises:
        ShardError: If there is no readable config.json.
    """
    try:
        config = dict(json.loads((folder / "config.json").read_bytes()))
        relevant = {key: value for key, value in config.items() if key not in _CONFIG_NOISE}
        return hashlib.sha256(canonical_json(relevant)).hexdigest()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ShardError(f"{folder}: no readable config.json ({error}); expected a transformers model folder") from None


def read_header(file: Path) -> list[TensorHeader]:
    """Return the tensors of a safetensors file.

    Raises:
        ShardError: If the file is cut, damaged or cannot be read.
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
    tensors = _parse_header(file, header, start=8 + length)
    end = max((t.offset + t.length for t in tensors), default=8 + length)
    if size < end:
        raise _damaged(file, f"found {size:,} bytes, its header says {end:,}: the file is cut")
    for tensor in tensors:
        width = _DTYPE_BYTES.get(tensor.dtype)
        if tensor.length < 0 or (width is not None and tensor.length != width * math.prod(tensor.shape)):
            raise _damaged(file, f"tensor {tensor.name} has {tensor.length:,} bytes for shape {list(tensor.shape)}")
    return tensors


def require_sound(folder: Path) -> None:
    """Check that a model's weights are complete, not cut, and finite.

    Infinity is accepted in a tensor of zeros and infinities: a mask that was saved with the weights.

    Values are checked in directories of up to 20 GB. Weights in other formats than safetensors are not checked.

    Raises:
        ShardError: If they are not.
    """
    files = sorted(folder.glob("*.safetensors"))
    _require_complete(folder, {file.name for file in files})
    headers = {file: read_header(file) for file in files}
    if sum(file.stat().st_size for file in files) > _SCANNED_AT_MOST:
        return
    for file, tensors in headers.items():
        if not _remembered(file).get("finite"):
            _refuse_infinite(file, tensors)
            _remember(file, finite=True)


def _parse_header(file: Path, header: dict[str, Any], *, start: int) -> list[TensorHeader]:
    try:
        return [
            TensorHeader(
                name=name,
                dtype=str(fields["dtype"]),
                shape=tuple(int(n) for n in fields["shape"]),
                offset=start + int(fields["data_offsets"][0]),
                length=int(fields["data_offsets"][1]) - int(fields["data_offsets"][0]),
            )
            for name, fields in header.items()
            if name != "__metadata__"
        ]
    except (KeyError, TypeError, ValueError, IndexError):
        raise _damaged(file, "found a damaged safetensors header") from None


def _require_complete(folder: Path, names: set[str]) -> None:
    """Raise ShardError if a file that the index lists is missing, or the index of several files."""
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


def _refuse_infinite(file: Path, tensors: list[TensorHeader]) -> None:
    for tensor in tensors:
        if tensor.dtype not in _DTYPES:
            continue
        num_nan = num_infinite = 0
        is_mask = True
        for block in _blocks(file, tensor):
            nan, infinite = _count_special(block, tensor.dtype)
            num_nan, num_infinite = num_nan + nan, num_infinite + infinite
            is_mask = is_mask and np.count_nonzero(block) == infinite
        if num_nan:
            raise _damaged(file, f"tensor {tensor.name} has {num_nan:,} values that are NaN")
        if num_infinite and not is_mask:
            raise _damaged(file, f"tensor {tensor.name} has {num_infinite:,} values that are infinite")


def _blocks(file: Path, tensor: TensorHeader) -> Iterator[Any]:
    count = tensor.length // _DTYPE_BYTES[tensor.dtype]
    if count == 0:
        return
    values = np.memmap(file, dtype=_DTYPES[tensor.dtype], mode="r", offset=tensor.offset, shape=(count,))
    for begin in range(0, count, _BLOCK_VALUES):
        yield values[begin : begin + _BLOCK_VALUES]


def _count_special(values: Any, dtype: str) -> tuple[int, int]:
    """Return the number of NaN and of infinities."""
    if dtype == "BF16":  # the exponent bits of both are all 1; NaN is above infinity
        magnitudes = values & np.uint16(0x7FFF)
        special = int(np.count_nonzero(magnitudes >= np.uint16(0x7F80)))
        num_nan = int(np.count_nonzero(magnitudes > np.uint16(0x7F80))) if special else 0
    else:
        special = int(np.count_nonzero(~np.isfinite(values)))
        num_nan = int(np.count_nonzero(np.isnan(values))) if special else 0
    return num_nan, special - num_nan


def _file_digest(file: Path) -> str:
    # A hub cache names large files by their sha256, so hashing 140 GB again adds nothing.
    blob = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return blob
    try:
        remembered = _remembered(file).get("sha256")
        if isinstance(remembered, str):
            return remembered
        digest = file_sha256(file)
    except OSError as error:
        raise _damaged(file, f"cannot read it ({error.strerror or error})") from None
    _remember(file, sha256=digest)
    return digest


# ---------------------------------------------------------------------------------------------------------------
# Facts about large files in the user's cache: the sha256, and that all values are finite


def _note_path(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
    return cache_dir() / "digests" / f"{name}.json"


def _version_key(file: Path) -> dict[str, int]:
    """Return what changes when the content of a file changes."""
    stat = file.stat()
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns, "ctime": stat.st_ctime_ns, "inode": stat.st_ino}


def _remembered(file: Path) -> dict[str, Any]:
    """Return the facts that are kept about a file; {} if it is small or has changed."""
    key = _version_key(file)
    if key["size"] < _REMEMBERED_FROM:
        return {}
    try:
        note = json.loads(_note_path(file).read_bytes())
        return dict(note["facts"]) if note["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):  # a ShardError if the user has no home directory
        return {}


def _remember(file: Path, **facts: Any) -> None:
    key = _version_key(file)
    if key["size"] >= _REMEMBERED_FROM:
        with contextlib.suppress(OSError, ShardError):  # without the note, the file is read again
            write_atomic(_note_path(file), canonical_json({"key": key, "facts": {**_remembered(file), **facts}}))


def _damaged(path: Path, problem: str) -> ShardError:
    return ShardError(f"{path}: {problem}; expected whole weights: fetch or save the model again")

"""Where do documents come from? The standard library, a folder, parquet or JSONL files, a hub data set.

Every source yields its documents in an order of its own that is the same each time, one at a time: nothing here holds
more than a batch of a table.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import zstandard

from teacher_dump.errors import DumpError

THE_STACK_FACTS: dict[str, Any] = {
    "documents": 12_962_249,
    "bytes": 64.30e9,
    "cite": "StarCoder, arXiv 2305.06161, table 1, after near-deduplication",
}

_TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_TEXT = ("content", "text", "code")
_SOURCE = ("max_stars_repo_name", "repo_name", "repository", "repo")
_PATH = ("max_stars_repo_path", "path", "file_path")
_LICENCE = ("max_stars_repo_licenses", "licenses", "license", "licence")
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "__pycache__", ".git", ".venv", "node_modules"}
_HUB = "hub:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """A document as its source has it."""

    text: str | bytes
    source: str
    path: str
    licence: str | None
    """None where the source has no field for it, "" where the field is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubName:
    """A hub data set."""

    repo: str
    revision: str | None
    folder: str | None


def is_hub_id(data: str) -> bool:
    """Return whether `--data` names a hub data set rather than something on this machine."""
    if data.startswith(_HUB):
        return True
    if data == "stdlib" or data.endswith(_TABLES) or Path(data).exists():
        return False
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[^:]+)?(:.+)?", data) is not None


def parse_hub(data: str) -> HubName:
    """Return the parts of [hub:]org/name[@revision][:folder]."""
    name, _, folder = data.removeprefix(_HUB).partition(":")
    repo, _, revision = name.partition("@")
    return HubName(repo=repo, revision=revision or None, folder=folder or None)


def pinned(data: str) -> str:
    """Return `--data` with the revision of a hub data set, which is looked up where it is not given.

    A cache must be able to say what was read, and a restart must read the same. Raises DumpError.
    """
    if not is_hub_id(data):
        return data
    name = parse_hub(data)
    revision = name.revision
    if revision is None:
        try:
            from huggingface_hub import HfApi

            revision = str(HfApi().dataset_info(name.repo).sha)
        except (ImportError, OSError, ValueError) as error:
            raise _hub_error(data, name.repo, error) from None
    return f"{name.repo}@{revision}" + (f":{name.folder}" if name.folder else "")


def read(data: str) -> Iterator[Raw]:
    """Yield the documents of a corpus. Raises DumpError where it cannot be read."""
    if data == "stdlib":
        version = ".".join(map(str, sys.version_info[:3]))
        return _folder(Path(sysconfig.get_path("stdlib")), source=f"cpython {version}", licence="PSF-2.0")
    if is_hub_id(data):
        name = parse_hub(data)
        rows = hub_rows(name.repo, name.revision, folder=name.folder, split="train", streaming=True)
        return (_raw(row, where=f"{name.repo} row {n}", source=name.repo) for n, row in enumerate(rows))
    path = Path(data)
    if path.is_dir():
        files = sorted(file for suffix in _TABLES for file in path.glob(f"**/*{suffix}"))
        return _tables(files) if files else _folder(path, source=path.resolve().name, licence=None)
    if not path.is_file():
        raise DumpError(
            f"--data {data}: found no such file, expected stdlib, a folder, parquet or JSONL files, or a hub data "
            "set org/name"
        )
    return _tables([path])


def _folder(root: Path, *, source: str, licence: str | None) -> Iterator[Raw]:
    for path in sorted(root.glob("**/*.py")):
        relative = path.relative_to(root)
        if not _SKIPPED_FOLDERS.intersection(relative.parts[:-1]) and path.is_file():
            yield Raw(text=path.read_bytes(), source=source, path=relative.as_posix(), licence=licence)


def _tables(files: list[Path]) -> Iterator[Raw]:
    for file in files:
        for line, row in enumerate(_parquet(file) if file.suffix == ".parquet" else _jsonl(file)):
            yield _raw(row, where=f"{file} row {line}", source=file.name)


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DumpError(f"{file}: not a readable parquet file ({error})") from None


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with _open_text(file) as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DumpError(
                        f"{file} line {number + 1}: not JSON ({error}); expected one object a line"
                    ) from None
                if not isinstance(row, dict):
                    raise DumpError(f"{file} line {number + 1}: found {type(row).__name__}, expected an object")
                yield row


def _open_text(file: Path) -> TextIO:
    if file.suffix == ".zst":
        # A stranger's file: a frame may ask for a large window, the text is streamed.
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file.open("rb"), closefd=True)
        return io.TextIOWrapper(reader, encoding="utf-8")
    if file.suffix == ".gz":
        return cast(TextIO, gzip.open(file, "rt", encoding="utf-8"))
    return file.open(encoding="utf-8")


def hub_rows(
    repo: str,
    revision: str | None,
    *,
    folder: str | None = None,
    config: str | None = None,
    split: str,
    streaming: bool,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a hub data set. Raises DumpError where it cannot be had, and says what to do."""
    data = f"{repo}@{revision}" if revision else repo
    try:
        import datasets
    except ImportError as error:
        raise DumpError(f"--data {data}: needs the package {error.name}; pip install 'teacherless[dump]'") from None
    try:
        yield from datasets.load_dataset(
            repo, config, revision=revision, data_dir=folder, split=split, streaming=streaming
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _hub_error(data, repo, error) from error


def _hub_error(data: str, repo: str, error: Exception) -> DumpError:
    """Return what to do about an error of the hub's clients."""
    kind = type(error).__name__
    if "gated" in str(error).lower() or kind == "GatedRepoError":
        stack = (
            " The Stack's terms ask that each file's own licence be kept to and that removals be followed."
            if repo.startswith("bigcode/the-stack")
            else ""
        )
        return DumpError(
            f"--data {data}: access is gated; accept the terms of {repo} on its hub page, run `hf auth login` (or set "
            f"HF_TOKEN), and start again, or give --data files that you have.{stack}"
        )
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"):
        return DumpError(
            f"--data {data}: found no such file, folder or hub data set; check the name and the revision, or run "
            "`hf auth login` if it is private"
        )
    if isinstance(error, OSError):
        return DumpError(
            f"--data {data}: the hub cannot be reached ({kind}); connect, or give --data files on this machine"
        )
    return DumpError(f"--data {data}: cannot be read as a data set ({kind}: {error}); give [:folder] or files")


def _raw(row: dict[str, Any], *, where: str, source: str) -> Raw:
    def first(names: tuple[str, ...], default: Any) -> Any:
        return next((row[n] for n in names if row.get(n) is not None), default)

    text = first(_TEXT, None)
    if not isinstance(text, str | bytes):
        raise DumpError(f"{where}: found columns {', '.join(row)}, expected the text in one of {', '.join(_TEXT)}")
    licence = first(_LICENCE, "" if any(n in row for n in _LICENCE) else None)
    if isinstance(licence, list):
        # What was found in one repository: all of them may apply.
        licence = " AND ".join(map(str, licence))
    return Raw(
        text=text,
        source=str(first(_SOURCE, source)),
        path=str(first(_PATH, where.rsplit(" ", 2)[-1])),
        licence=None if licence is None else str(licence),
    )

"""Documents of a corpus: the standard library, a folder, parquet or JSONL files, a hub data set.

Every source yields its documents in an order of its own that is the same each time, one at a time: nothing here holds
more than a batch of a table.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from teacher_dump.corpus.readers.folder import list_folder, read_sources, unreadable
from teacher_dump.corpus.readers.raw import COLUMNS, TEXT, Raw, printable, raw_of
from teacher_dump.corpus.readers.tables import ENDINGS, read_tables
from teacher_dump.errors import DumpError

THE_STACK_FACTS: dict[str, Any] = {
    "documents": 12_962_249,
    "bytes": 64.30e9,
    "cite": "StarCoder, arXiv 2305.06161, table 1, after near-deduplication",
}

_HUB = "hub:"


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
    if data == "stdlib" or data.endswith(ENDINGS) or Path(data).exists():
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


def portable(data: str) -> str:
    """Return `--data` as it may leave this machine: of a local corpus the last component of its path."""
    return data if data == "stdlib" or is_hub_id(data) else printable(Path(data).resolve().name)


def place_sha256(data: str) -> str | None:
    """Return a digest of where a local corpus lies; None of any other. It tells a place again without naming it."""
    if data == "stdlib" or is_hub_id(data):
        return None
    return hashlib.sha256(os.fsencode(Path(data).resolve())).hexdigest()


def files_sha256(data: str) -> str | None:
    """Return a digest of the names and sizes of a local corpus's files; None of any other, and of a missing one.

    It tells folders of one name apart without reading them.
    """
    path = Path(data)
    if data == "stdlib" or is_hub_id(data) or not path.exists():
        return None
    listing = list_folder(path) if path.is_dir() else None
    files = [path] if listing is None else sorted([*listing.tables, *listing.sources])
    root = path.parent if listing is None else path
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size if file.exists() else -1
        digest.update(f"{size} {printable(file.relative_to(root).as_posix())}\n".encode())
    return digest.hexdigest()


def read(data: str, counts: Counter[str] | None = None) -> Iterator[Raw]:
    """Yield the documents of a corpus. Raises DumpError where it cannot be read.

    Args:
        data: `--data`.
        counts: Gets the number of files and folders that are not read, by reason.
    """
    if data == "stdlib":
        version = ".".join(map(str, sys.version_info[:3]))
        listing = list_folder(Path(sysconfig.get_path("stdlib")))
        return read_sources(listing, source=f"cpython {version}", licence="PSF-2.0")
    if is_hub_id(data):
        return _hub_documents(parse_hub(data))
    path = Path(data)
    if path.is_dir():
        return _folder(path, Counter() if counts is None else counts)
    if not path.is_file():
        raise DumpError(
            f"--data {printable(data)}: found no such file, expected stdlib, a folder, parquet or JSONL files, or a "
            "hub data set org/name"
        )
    return read_tables([path])


def _folder(path: Path, counts: Counter[str]) -> Iterator[Raw]:
    listing = list_folder(path)
    listing.require_one_kind()
    counts.update(listing.not_read)
    source = printable(path.resolve().name)
    documents = read_tables(listing.tables) if listing.tables else read_sources(listing, source=source, licence=None)
    return chain(unreadable(listing, source=source), documents)


def _hub_documents(name: HubName) -> Iterator[Raw]:
    rows = hub_rows(name.repo, name.revision, folder=name.folder, split="train", streaming=True, columns=COLUMNS)
    for number, row in enumerate(rows):
        raw = raw_of(row, number=number, source=name.repo)
        if number == 0 and not any(column in row for column in TEXT):
            raise DumpError(f"{name.repo} row 0: {raw.problem[1] if raw.problem else ''}")
        yield raw


def hub_rows(
    repo: str,
    revision: str | None,
    *,
    folder: str | None = None,
    config: str | None = None,
    split: str,
    streaming: bool,
    columns: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a hub data set. Raises DumpError where it is unavailable, and says what to do.

    With `columns`, only those of them that the data set has are decoded.
    """
    data = f"{repo}@{revision}" if revision else repo
    try:
        import datasets
    except ImportError as error:
        raise DumpError(f"--data {data}: needs the package {error.name}; pip install 'teacherless[dump]'") from None
    try:
        rows = datasets.load_dataset(repo, config, revision=revision, data_dir=folder, split=split, streaming=streaming)
        there = getattr(rows, "column_names", None) or []  # None where a stream does not know before its first row
        if used := [column for column in columns if column in there]:
            rows = rows.select_columns(used)
        yield from rows
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

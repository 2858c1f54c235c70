"""Reader of data sets on the Hugging Face hub, streamed at a pinned revision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_dump.corpus.document import RawDocument
from teacher_dump.corpus.readers.rows import COLUMNS, TEXT_COLUMNS, document_from_row
from teacher_dump.corpus.readers.table_rows import TABLE_SUFFIXES
from teacher_dump.errors import DumpError

_PREFIX = "hub:"
_STACK_TERMS = (
    " The Stack's terms require that each file's own licence is respected and that removal requests are followed."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubDataset:
    """A data set on the hub, as --data names it."""

    repo: str
    revision: str | None
    folder: str | None

    @classmethod
    def parse(cls, data: str) -> HubDataset:
        """Parse [hub:]org/name[@revision][:folder]."""
        name, _, folder = data.removeprefix(_PREFIX).partition(":")
        repo, _, revision = name.partition("@")
        return cls(repo=repo, revision=revision or None, folder=folder or None)


def is_hub_id(data: str) -> bool:
    """Return whether a value of --data names a hub data set, and not a corpus on this machine."""
    if data.startswith(_PREFIX):
        return True
    if data == "stdlib" or data.endswith(TABLE_SUFFIXES) or Path(data).exists():
        return False
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[^:]+)?(:.+)?", data) is not None


def pin_revision(data: str) -> str:
    """Return a value of --data with the revision of a hub data set; other values are returned unchanged.

    A cache records which revision was read, and a later start reads the same one.

    Raises:
        DumpError: The revision is not given, and the hub does not return it.
    """
    if not is_hub_id(data):
        return data
    dataset = HubDataset.parse(data)
    revision = dataset.revision
    if revision is None:
        try:
            from huggingface_hub import HfApi

            revision = str(HfApi().dataset_info(dataset.repo).sha)
        except (ImportError, OSError, ValueError) as error:
            raise _hub_error(data, dataset.repo, error) from None
    return f"{dataset.repo}@{revision}" + (f":{dataset.folder}" if dataset.folder else "")


def read_hub(data: str) -> Iterator[RawDocument]:
    """Yield the documents of a hub data set.

    Raises:
        DumpError: The data set is unavailable, or its first row has no column of texts.
    """
    dataset = HubDataset.parse(data)
    rows = hub_rows(
        dataset.repo, dataset.revision, folder=dataset.folder, split="train", streaming=True, columns=COLUMNS
    )
    for number, row in enumerate(rows):
        raw = document_from_row(row, number=number, source=dataset.repo)
        if number == 0 and not any(column in row for column in TEXT_COLUMNS):
            raise DumpError(f"{dataset.repo} row 0: {raw.problem.detail if raw.problem else ''}")
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
    """Yield the rows of a hub data set.

    Args:
        repo: Repository of the data set.
        revision: Commit, branch or tag.
        folder: Folder of the repository to read.
        config: Configuration of the data set.
        split: Split of the data set.
        streaming: Whether to stream rows in place of downloading the whole data set first.
        columns: Columns to decode, where the data set has them; all columns if none are given.

    Raises:
        DumpError: The data set is unavailable; the message names the remedy.
    """
    data = f"{repo}@{revision}" if revision else repo
    try:
        import datasets
    except ImportError as error:
        raise DumpError(f"--data {data}: needs the package {error.name}; pip install 'teacherless[dump]'") from None
    try:
        rows = datasets.load_dataset(repo, config, revision=revision, data_dir=folder, split=split, streaming=streaming)
        available = getattr(rows, "column_names", None) or []  # None: a stream may not know before its first row
        if used := [column for column in columns if column in available]:
            rows = rows.select_columns(used)
        yield from rows
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _hub_error(data, repo, error) from error


def _hub_error(data: str, repo: str, error: Exception) -> DumpError:
    """Return the error that names the remedy for an error of the hub's clients."""
    kind = type(error).__name__
    if "gated" in str(error).lower() or kind == "GatedRepoError":
        terms = _STACK_TERMS if repo.startswith("bigcode/the-stack") else ""
        return DumpError(
            f"--data {data}: access is gated; accept the terms of {repo} on its hub page, run `hf auth login` (or set "
            f"HF_TOKEN), and start again, or give --data local files.{terms}"
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

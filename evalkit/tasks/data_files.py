"""Descriptions of benchmark files, each pinned by its sha256.

HumanEval comes with a PyPI package. The user names the folder of other files with `--data-dir`, or
`evalkit/tasks/download.py` fetches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class HubRows:
    """Rows of a dataset on the Hugging Face hub, and their layout in the original release."""

    repository: str
    revision: str
    """A commit, because the content of a branch may change."""
    folder: str
    splits: tuple[str, ...] = ("prompt", "test", "validation", "train")
    """Splits in the order of the task numbers."""
    keys: tuple[str, ...]
    """Fields of a row, in the release's order."""
    one_per_line: bool
    """The release is JSONL; otherwise it is one JSON list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A benchmark file as its authors released it."""

    title: str
    names: tuple[str, ...]
    """Accepted file names, in the data folder or in its subfolders `mbpp` and `evalplus`."""
    sha256: str
    url: str
    """Address for error messages: where a person gets the file."""
    licence: str
    hub: HubRows | None = None
    """Rows on the hub from which the file can be rebuilt."""
    link: str = ""
    """Direct download, for files that are not on the hub."""


def candidate_paths(names: tuple[str, ...], data_dir: Path) -> list[Path]:
    """Return all paths at which a file with one of `names` may be in the data folder, by priority."""
    return [folder / name for folder in (data_dir, data_dir / "mbpp", data_dir / "evalplus") for name in names]


def verified(path: Path, sha256: str, *, title: str) -> Path:
    """Return `path` if its content has the pinned digest.

    Args:
        path: The file.
        sha256: The pinned digest, hex.
        title: Name of the benchmark for errors.

    Raises:
        EvalError: The digest differs, or the file cannot be read.
    """
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); expected the data of {title}") from error
    if digest != sha256:
        raise EvalError(f"{path}: sha256 {digest[:12]}.. is not that of {title} ({sha256[:12]}..); get the pinned file")
    return path

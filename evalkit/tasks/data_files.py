"""Where does a benchmark's data lie, and is it the pinned one?

HumanEval comes with a PyPI package. The others are files that the user names with `--data-dir`, or that
`download.py` fetches; each is checked against its sha256, and what is missing is named with the way to get it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_file

if TYPE_CHECKING:
    from evalkit.tasks.data_files import DataFile


@dataclass(frozen=True, kw_only=True, slots=True)
class HubRows:
    """Rows of a data set on the hub, and how the release lays them out."""

    repository: str
    revision: str
    """A commit: what a branch holds may change."""
    folder: str
    splits: tuple[str, ...] = ("prompt", "test", "validation", "train")
    """In the order of the task numbers."""
    keys: tuple[str, ...]
    """The fields of a row, in the release's order."""
    one_per_line: bool
    """JSONL; otherwise one JSON list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A file of a benchmark, as its makers released it."""

    title: str
    names: tuple[str, ...]
    """Names that it may have in the data folder, or in a folder `mbpp` or `evalplus` inside."""
    sha256: str
    url: str
    """Where a person gets it."""
    licence: str
    hub: HubRows | None = None
    """Its rows on the hub."""
    link: str = ""
    """Where it is fetched from when it is not on the hub."""


_MBPP_HUB = "google-research-datasets/mbpp"
_MBPP_COMMIT = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"


MBPP = DataFile(
    title="MBPP",
    names=("mbpp.jsonl",),
    sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    url="https://github.com/google-research/google-research/raw/master/mbpp/mbpp.jsonl",
    licence="CC-BY-4.0",
    hub=HubRows(
        repository=_MBPP_HUB,
        revision=_MBPP_COMMIT,
        folder="full",
        keys=("text", "code", "task_id", "test_setup_code", "test_list", "challenge_test_list"),
        one_per_line=True,
    ),
)
MBPP_SANITIZED = DataFile(
    title="sanitized MBPP",
    names=("sanitized-mbpp.json",),
    sha256="ca95deaa9a01ef0a6f439f88bcf0dd3db3563d22f22aad6cae04ebb9a8d8c8e9",
    url="https://github.com/google-research/google-research/raw/master/mbpp/sanitized-mbpp.json",
    licence="CC-BY-4.0",
    hub=HubRows(
        repository=_MBPP_HUB,
        revision=_MBPP_COMMIT,
        folder="sanitized",
        keys=("source_file", "task_id", "prompt", "code", "test_imports", "test_list"),
        one_per_line=False,
    ),
)
HUMANEVAL_PLUS = DataFile(
    title="HumanEval+ v0.1.10",
    names=("HumanEvalPlus-v0.1.10.jsonl.gz", "HumanEvalPlus.jsonl.gz"),
    sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    url="https://github.com/evalplus/humanevalplus_release (branch v0.1.10, HumanEvalPlus.jsonl.gz)",
    licence="Apache-2.0",
    # The branch: the tag of the same name holds the data of v0.1.9.
    link="https://github.com/evalplus/humanevalplus_release/raw/refs/heads/v0.1.10/HumanEvalPlus.jsonl.gz",
)
MBPP_PLUS = DataFile(
    title="MBPP+ v0.2.0",
    names=("MbppPlus-v0.2.0.jsonl.gz", "MbppPlus.jsonl.gz"),
    sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    url="https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
    licence="Apache-2.0",
    link="https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
)


def data_files(data_dir: Path | None) -> list[Path]:
    """Return the benchmark files in the data folder."""
    if data_dir is None:
        return []
    names = [name for file in (MBPP, MBPP_SANITIZED, HUMANEVAL_PLUS, MBPP_PLUS) for name in file.names]
    folders = (data_dir, data_dir / "mbpp", data_dir / "evalplus")
    return [folder / name for folder in folders for name in (*names, "HumanEval.jsonl.gz") if (folder / name).is_file()]


def checked(path: Path, sha256: str, *, title: str) -> Path:
    """Return `path` when its bytes are the pinned ones.

    Raises:
        EvalError: they are not, or it cannot be read.
    """
    try:
        found = sha256_file(path)
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); expected the data of {title}") from error
    if found != sha256:
        raise EvalError(f"{path}: sha256 {found[:12]}.. is not that of {title} ({sha256[:12]}..); get the pinned file")
    return path

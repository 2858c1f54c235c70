"""Sources of prompts, by the forms that --prompts takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from teacher_dump.config import DumpConfig
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.readers.hub import is_hub_id, pin_revision
from teacher_dump.corpus.readers.rows import printable
from teacher_dump.corpus.readers.sources import files_sha256, portable_name, require_present
from teacher_dump.corpus.readers.table_rows import TABLE_SUFFIXES
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.mbpp import part_of, read_mbpp
from teacher_dump.writing.prompts.prompt import RawPrompt
from teacher_dump.writing.prompts.rows import read_prompt_hub, read_prompt_table
from teacher_dump.writing.prompts.signatures import PREFIX, read_signatures


def read_prompts(prompts: str, config: DumpConfig, drop_log: DropLog, *, is_chat: bool) -> Iterator[RawPrompt]:
    """Yield the prompts that a value of --prompts names, in an order of their own that is the same on each run.

    Args:
        prompts: The value, with a pinned revision.
        config: Seed and filters of a corpus whose functions become prompts.
        drop_log: Receives the dropped documents of such a corpus.
        is_chat: Whether the writer has a chat template.

    Raises:
        DumpError: They cannot be read.
    """
    if prompts.startswith(PREFIX):
        corpus = Corpus(data=prompts.removeprefix(PREFIX), seed=config.seed, filters=config.filters, drop_log=drop_log)
        return read_signatures(corpus, is_chat=is_chat)
    if (part := part_of(prompts)) is not None:
        return read_mbpp(*part, is_chat=is_chat)
    if is_hub_id(prompts):
        return read_prompt_hub(prompts)
    return read_prompt_table(_table(prompts))


def pinned(prompts: str) -> str:
    """Return a value of --prompts with the revision of a hub data set.

    Raises:
        DumpError: The hub does not name it.
    """
    if prompts.startswith(PREFIX):
        return PREFIX + pin_revision(prompts.removeprefix(PREFIX))
    return prompts if part_of(prompts) is not None else pin_revision(prompts)


def require_prompts(prompts: str) -> None:
    """Check that local prompts exist. None is read.

    Raises:
        DumpError: They do not.
    """
    if prompts.startswith(PREFIX):
        require_present(prompts.removeprefix(PREFIX))
    elif part_of(prompts) is None and not is_hub_id(prompts):
        _table(prompts)


def portable_prompts(prompts: str) -> str:
    """Return a value of --prompts without paths of this machine."""
    if prompts.startswith(PREFIX):
        return PREFIX + portable_name(prompts.removeprefix(PREFIX))
    if (part := part_of(prompts)) is not None:
        return part[0]
    return portable_name(prompts)


def prompt_files_sha256(prompts: str) -> str | None:
    """Return a digest of the names and sizes of local prompts, None for others and for missing ones."""
    return None if part_of(prompts) is not None else files_sha256(prompts.removeprefix(PREFIX))


def _table(prompts: str) -> Path:
    file = Path(prompts)
    if file.is_file() and file.name.endswith(TABLE_SUFFIXES):
        return file
    found = "a folder" if file.is_dir() else "a file of another kind" if file.exists() else "no such file"
    raise DumpError(
        f"--prompts {printable(prompts)}: found {found}, expected a JSONL or parquet file, a hub data set org/name, "
        f"mbpp:train, mbpp:validation or {PREFIX}FOLDER"
    )

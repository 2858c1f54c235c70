"""Prompts of the training and the validation part of MBPP (arXiv 2108.07732).

The tasks 11 to 510 are the test part and never prompts. The file is the authors' release, pinned by its sha256: the one
in the folder that `mbpp:train=FILE` names, or the one that evalkit downloaded, or the rows of the hub data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from teacher_dump.corpus.filters.benchmark_texts import AUTO, auto_names
from teacher_dump.corpus.readers.hub import hub_rows
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.prompt import RawPrompt, user_message

PARTS = {"mbpp:train": (601, 974), "mbpp:validation": (511, 600)}
"""First and last number of the tasks of each part."""
LICENCE = "CC-BY-4.0"
_SHA256 = "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"
_REPO, _REVISION = "google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c"
_URL = "https://github.com/google-research/google-research/raw/master/mbpp/mbpp.jsonl"


def part_of(prompts: str) -> tuple[str, Path | None] | None:
    """Parse a value of --prompts to part and file; None if it names no part of MBPP."""
    name, equals, file = prompts.partition("=")
    return (name, Path(file) if equals else None) if name in PARTS else None


def with_test_split(decontaminate: str, prompts: str) -> str:
    """Return a value of --decontaminate: where it is `auto` and the prompts are MBPP's, it covers the test split too.

    MBPP's training part has tasks that are nearly those of its test split, which the student is scored on.
    """
    part = part_of(prompts)
    if part is None or decontaminate != AUTO:
        return decontaminate
    file = part[1] or _cached_release()
    source = f"hub:{_REPO}@{_REVISION}:full" if file is None else str(file)
    return ",".join((*auto_names(), f"mbpp={source}"))


def read_mbpp(part: str, file: Path | None, *, is_chat: bool) -> Iterator[RawPrompt]:
    """Yield the prompts of a part of MBPP, in the order of their numbers.

    Args:
        part: A key of `PARTS`.
        file: mbpp.jsonl; None to search for it.
        is_chat: Whether the writer has a chat template. A base model gets the text as the docstring of a program.

    Raises:
        DumpError: The file is missing or another one.
    """
    first, last = PARTS[part]
    for row in _rows(part, file):
        if first <= row["task_id"] <= last:
            yield RawPrompt(
                task_id=f"Mbpp/{row['task_id']}",
                messages=user_message(_question(row) if is_chat else _docstring(row)),
                source=part,
                path=str(row["task_id"]),
                licence=LICENCE,
            )


def _question(row: dict[str, Any]) -> str:
    """Return the prompt of the paper (section 3.1), without the marks of its few-shot format."""
    return (
        f"You are an expert Python programmer, and here is your task: {_clean(row['text'])} "
        f"Your code should pass these tests:\n\n{_tests(row)}"
    )


def _docstring(row: dict[str, Any]) -> str:
    return f'"""\n{_clean(row["text"])}\n{_tests(row)}\n"""'


def _tests(row: dict[str, Any]) -> str:
    return "\n".join(_clean(test) for test in row["test_list"])


def _clean(text: str) -> str:
    return text.replace("\r", "").strip()


def _rows(part: str, file: Path | None) -> list[dict[str, Any]]:
    file = file or _cached_release()
    if file is None:
        return _hub_rows()
    if not file.is_file():
        raise DumpError(f"--prompts {part}={file}: found no such file, expected MBPP's mbpp.jsonl; get it from {_URL}")
    if not _is_release(file):
        raise DumpError(f"--prompts {part}={file}: found another file, expected MBPP's mbpp.jsonl of {_URL}")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _hub_rows() -> list[dict[str, Any]]:
    rows = hub_rows(_REPO, _REVISION, config="full", split="train+validation", streaming=False)
    return sorted(rows, key=lambda row: int(row["task_id"]))


def _cached_release() -> Path | None:
    cached = _downloaded_by_evalkit()
    return cached if cached is not None and _is_release(cached) else None


def _downloaded_by_evalkit() -> Path | None:
    """Return the path of MBPP in the cache of evalkit, where it may be."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "teacherless" / "evalkit" / "data" / "mbpp.jsonl"
    except RuntimeError:  # the user has no home
        return None


def _is_release(file: Path) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == _SHA256

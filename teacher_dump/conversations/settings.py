"""Settings of conversations, and the facts about their filters that identify a cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teacher_dump.conversations.rows import TRAIN_ON
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.base import Filter
from teacher_dump.corpus.filters.benchmark_texts import AUTO, HUMANEVAL_HINT, load_benchmarks, portable_names
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex
from teacher_dump.corpus.filters.licences import LicenceFilter, allowed_licences
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.filters.text_limits import drop_large
from teacher_dump.errors import DumpError


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationSettings:
    """Settings of a corpus of conversations; `shards.runtime.settings_options` turns each field into an option."""

    train_on: str | None = field(
        default=None,
        metadata={
            "choices": TRAIN_ON,
            "default_text": "last",
            "help": "Conversations: record the last message of the assistant, or all of them, one row each.",
        },
    )
    verdicts: Path | None = field(
        default=None,
        metadata={
            "metavar": "FILE",
            "default_text": "none",
            "help": "Result of `evalkit score` on the answers of --data: record only those that passed.",
        },
    )

    def __post_init__(self) -> None:
        if self.train_on not in (None, *TRAIN_ON):
            raise DumpError(f"train_on: found {self.train_on!r}, expected one of {', '.join(TRAIN_ON)}")

    @property
    def are_given(self) -> bool:
        """Whether a setting is given: the corpus then has to hold conversations."""
        return self.train_on is not None or self.verdicts is not None


def build_filters(settings: FilterSettings) -> Iterator[Filter]:
    """Yield the filters of documents that apply to a conversation with its response.

    The limits on lines and letters, and the filter of near duplicates, are for source files: prompts are prose, and
    answers to one prompt resemble each other. Duplicates are the corpus's own concern: see `answer_corpus`.
    """
    yield drop_large(settings.max_bytes)
    allowed = allowed_licences(settings.licences)
    if allowed is not None:
        yield LicenceFilter(allowed)
    yield ContaminationIndex(load_benchmarks(settings.decontaminate, scored_only=True))


def provenance(settings: FilterSettings) -> dict[str, Any]:
    """Return what decides which answers are kept, as `corpus.filters.pipeline.provenance` for documents.

    Raises:
        DumpError: A benchmark is missing.
    """
    benchmarks = load_benchmarks(settings.decontaminate, scored_only=True)
    facts: dict[str, Any] = {
        "licences": settings.licences,
        "max_bytes": settings.max_bytes,
        "decontaminate": portable_names(settings.decontaminate),
        "lexer": ngrams.VERSION,
        "decontamination_threshold": THRESHOLD,
        "checked_against": [b.to_dict() for b in benchmarks],
    }
    if settings.decontaminate == AUTO and not benchmarks:
        facts["not_checked"] = f"humaneval: {HUMANEVAL_HINT}"
    return facts

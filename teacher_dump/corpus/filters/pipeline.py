"""The filters in their order, and the facts about them that identify a cache.

The order decides which reason a document is counted under. Cheap filters come first. Near duplicates come last,
because a document is compared with those that all other filters kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.base import Filter
from teacher_dump.corpus.filters.benchmark_texts import AUTO, HUMANEVAL_HINT, load_benchmarks, portable_names
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex
from teacher_dump.corpus.filters.dedup import ExactDuplicates, NearDuplicates
from teacher_dump.corpus.filters.generated import drop_generated
from teacher_dump.corpus.filters.licences import LicenceFilter, allowed_licences
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.filters.text_limits import TextLimits, drop_blank


def build_filters(settings: FilterSettings | None) -> Iterator[Filter]:
    """Yield the filters that are switched on, in order.

    Args:
        settings: The settings; None drops only blank texts and exact duplicates.

    Raises:
        DumpError: A benchmark or a package that a filter needs is missing.
    """
    if settings is None:
        yield drop_blank
        yield ExactDuplicates()
        return
    yield TextLimits(
        max_bytes=settings.max_bytes,
        max_line=settings.max_line,
        max_mean_line=settings.max_mean_line,
        min_alphanumeric=settings.min_alphanumeric,
    )
    allowed = allowed_licences(settings.licences)
    if allowed is not None:
        yield LicenceFilter(allowed)
    if not settings.keep_generated:
        yield drop_generated
    yield ExactDuplicates()
    yield ContaminationIndex(load_benchmarks(settings.decontaminate))
    if settings.near_duplicates:
        yield NearDuplicates(settings.near_duplicates)


def provenance(settings: FilterSettings) -> dict[str, Any]:
    """Return what decides which documents are kept: settings, benchmarks by digest, version of the rules.

    It is part of the manifest and of a cache's identity.

    Raises:
        DumpError: A benchmark is missing.
    """
    benchmarks = load_benchmarks(settings.decontaminate)
    facts: dict[str, Any] = {
        **settings.to_dict(),
        "decontaminate": portable_names(settings.decontaminate),
        "lexer": ngrams.VERSION,
        "decontamination_threshold": THRESHOLD,
        "checked_against": [b.to_dict() for b in benchmarks],
    }
    if settings.decontaminate == AUTO and not benchmarks:
        facts["not_checked"] = f"humaneval: {HUMANEVAL_HINT}"
    return facts

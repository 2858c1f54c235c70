"""The documents of a corpus in order: read, decoded, filtered and ordered by a seeded hash.

Every dropped document is counted under its reason and, if a drop log is given, listed there. Memory: a block of a
streamed data set or a bucket of a local corpus (`order`), the state of the duplicate filters (`filters.dedup`), and
10 MB for the benchmarks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from teacher_dump.corpus.document import Document, Drop, decode
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.base import Candidate
from teacher_dump.corpus.filters.licences import allowed_licences
from teacher_dump.corpus.filters.pipeline import build_filters
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.order import in_blocks, in_buckets, sort_key
from teacher_dump.corpus.readers import sources
from teacher_dump.corpus.readers.hub import is_hub_id


@dataclass(kw_only=True, slots=True)
class Corpus:
    """Documents in order. Each iteration reads the source again and resets `counts` and `drop_log`.

    `unfiltered` yields all of them.
    """

    data: str
    """The value of --data."""
    seed: int
    """Seed of the order."""
    max_documents: int | None = None
    filters: FilterSettings | None = None
    """None keeps every text that is not blank, once."""
    counts: Counter[str] = field(default_factory=Counter)
    """Documents read, and documents dropped by reason."""
    drop_log: DropLog | None = None
    """List of the dropped documents."""

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            DumpError: The source cannot be read, or a benchmark to decontaminate against is missing.
        """
        self._reset()
        ordered = in_blocks if is_hub_id(self.data) else in_buckets
        return islice(ordered(self._filtered(), sort_key(self.seed)), self.max_documents)

    def unfiltered(self) -> Iterator[Document]:
        """Yield every document that is text, duplicates included, in the order of the source. `filters` is not used.

        Raises:
            DumpError: The source cannot be read.
        """
        self._reset()
        return islice((candidate.document for candidate in self._decoded()), self.max_documents)

    def drop(self, document: Document, reason: str, detail: str = "") -> None:
        """Count a document as dropped, and add it to the drop log."""
        self.counts[f"dropped: {reason}"] += 1
        if self.drop_log is not None:
            self.drop_log.add(document, Drop(reason, detail))

    def _reset(self) -> None:
        self.counts.clear()
        if self.drop_log is not None:
            self.drop_log.clear()

    def _decoded(self) -> Iterator[Candidate]:
        """Yield each document with a Unicode text."""
        has_licence_field = False
        for raw in sources.read(self.data, self.counts):
            self.counts["documents read"] += 1
            problem, text, encoded = decode(raw)
            # Once a row has the field, a row without it counts as "not stated".
            has_licence_field = has_licence_field or raw.licence is not None
            document = Document(
                text=text,
                source=raw.source,
                path=raw.path,
                licence=raw.licence or "",
                sha256=hashlib.sha256(encoded).hexdigest(),
            )
            if problem is not None:
                self.drop(document, *problem)
            else:
                yield Candidate(document, document.licence if has_licence_field else None)

    def _filtered(self) -> Iterator[Document]:
        """Yield each document that every filter keeps."""
        filters = list(build_filters(self.filters))
        checks_licences = self.filters is not None and allowed_licences(self.filters.licences) is not None
        for candidate in self._decoded():
            drop = next((drop for check in filters if (drop := check(candidate)) is not None), None)
            if drop is not None:
                self.drop(candidate.document, *drop)
                continue
            if checks_licences and candidate.licence is None:
                self.counts["licence: no field, not checked"] += 1
            yield candidate.document

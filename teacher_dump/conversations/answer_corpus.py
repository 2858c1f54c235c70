"""The answers of a corpus in order: read, matched with verdicts, filtered, numbered, and ordered by a seeded hash.

Every dropped answer is counted under its reason and, if a drop log is given, listed there. Memory: about 300 bytes for
each answer, its digests and its number, and a bucket of the order (`corpus.order`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.read import ConversationRow, read_conversations
from teacher_dump.conversations.settings import build_filters
from teacher_dump.conversations.verdicts import AnswerNumbers, Verdicts
from teacher_dump.corpus.document import Document, Drop
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.base import Candidate, Filter
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.order import in_blocks, in_buckets
from teacher_dump.corpus.readers.hub import is_hub_id

READ, USED, PROMPTS = "answers read", "answers", "prompts"
"""Names of counts."""


@dataclass(kw_only=True, slots=True)
class AnswerCorpus:
    """Answers in order. Each iteration reads the source again and resets `counts` and `drop_log`."""

    data: str
    """The value of --data."""
    seed: int
    """Seed of the order."""
    train_on: str = "last"
    verdicts: Verdicts | None = None
    filters: FilterSettings
    max_documents: int | None = None
    """Most prompts: the answers to one conversation are one document."""
    counts: Counter[str] = field(default_factory=Counter)
    drop_log: DropLog | None = None

    def __iter__(self) -> Iterator[AnsweredConversation]:
        """Yield the answers; those to one conversation follow each other, in a streamed data set within each block.

        Raises:
            DumpError: The source cannot be read, or a benchmark to decontaminate against is missing.
        """
        self.counts.clear()
        if self.drop_log is not None:
            self.drop_log.clear()
        last = None
        num_prompts = 0
        ordered = in_blocks if is_hub_id(self.data) else in_buckets
        for answer in ordered(self._numbered(), self._place):
            if answer.document != last:
                if num_prompts == self.max_documents:
                    return
                last, num_prompts = answer.document, num_prompts + 1
                self.counts[PROMPTS] += 1
            yield answer

    def drop(self, answer: AnsweredConversation, reason: str, detail: str = "") -> None:
        """Count an answer as dropped, and add it to the drop log."""
        self._drop(as_document(answer), Drop(reason, detail))

    def _drop(self, document: Document, drop: Drop) -> None:
        self.counts[f"dropped: {drop.reason}"] += 1
        if self.drop_log is not None:
            self.drop_log.add(document, drop)

    def _place(self, answer: AnsweredConversation) -> bytes:
        """Return the place of an answer in the order: by prompt, then by number."""
        digest = hashlib.sha256(f"{self.seed}/{answer.document}".encode()).digest()
        return digest + (answer.index or 0).to_bytes(8)

    def _read(self) -> Iterator[AnsweredConversation]:
        """Yield the answers of usable rows that passed."""
        numbers = None if self.verdicts is None else AnswerNumbers(self.verdicts)
        has_licence_field = False
        for row in read_conversations(self.data, train_on=self.train_on, counts=self.counts):
            self.counts[READ] += max(1, len(row.answers))
            # Unusable rows count too: the verdicts have one for each sample of the file.
            number = None if numbers is None else numbers.next(row.task_id, _index_of(row))
            if row.problem is not None:
                self._drop(_document_of(row), row.problem)
                continue
            is_written = row.answers[-1].writer is not None
            has_licence_field = has_licence_field or (row.origin.licence is not None and not is_written)
            for answer in row.answers:
                drop = None if self.verdicts is None else self.verdicts.drop(answer.task_id, number)
                if drop is not None:
                    self.drop(answer, *drop)
                    continue
                # The licences of prompts were checked before a model answered them.
                is_checked = has_licence_field and not is_written
                yield replace(answer, licence=(answer.licence or "") if is_checked else answer.licence or None)

    def _filtered(self) -> Iterator[AnsweredConversation]:
        """Yield each answer that every filter keeps."""
        filters = list(build_filters(self.filters))
        seen: set[bytes] = set()
        for answer in self._read():
            drop = _unusable(answer, seen) or _first_drop(filters, answer)
            if drop is None:
                yield answer
            else:
                self.drop(answer, *drop)

    def _numbered(self) -> Iterator[AnsweredConversation]:
        """Yield the answers with a number each, unique among those to one conversation.

        An answer keeps its own index; one without, or with an index that is taken, gets the next free number.
        """
        taken: set[tuple[bytes, int]] = set()
        next_free: Counter[bytes] = Counter()
        for answer in self._filtered():
            key = bytes.fromhex(answer.document)[:16]
            index = answer.index
            if index is None or (key, index) in taken:
                while (key, next_free[key]) in taken:
                    next_free[key] += 1
                index = next_free[key]
            taken.add((key, index))
            yield replace(answer, index=index)


def as_document(answer: AnsweredConversation) -> Document:
    """Return an answer as the filters of documents and the drop log see it."""
    return Document(
        text=answer.text,
        source=answer.source,
        path=answer.path if answer.index is None else f"{answer.path} answer {answer.index}",
        licence=answer.licence or "",
        sha256=answer.document,
    )


def _unusable(answer: AnsweredConversation, seen: set[bytes]) -> Drop | None:
    """Return why an answer that was given as text is dropped. A draw of a model is kept, even if it repeats another."""
    if answer.generated is not None:
        return None
    if not answer.response.strip():
        return Drop("empty response")
    key = hashlib.blake2b(f"{answer.messages}\n{answer.response}".encode(), digest_size=16).digest()
    if key in seen:
        return Drop("exact duplicate")
    seen.add(key)
    return None


def _first_drop(filters: list[Filter], answer: AnsweredConversation) -> Drop | None:
    candidate = Candidate(as_document(answer), answer.licence)
    return next((drop for check in filters if (drop := check(candidate)) is not None), None)


def _index_of(row: ConversationRow) -> int | None:
    return row.answers[-1].index if row.answers else None


def _document_of(row: ConversationRow) -> Document:
    return Document(
        text="",
        source=row.origin.source,
        path=row.origin.path,
        licence=row.origin.licence or "",
        sha256=hashlib.sha256(row.content).hexdigest(),
    )

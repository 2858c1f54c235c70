"""The documents of a corpus in order: a source, one set of filters, a seeded hash of the content.

Each filter counts what it drops; `dropped` gets a line for each document. What is decided first: whether the text can
be read, its size and lines, its licence, who wrote it; then whether it was there before, whether a benchmark is in it,
whether nearly the same was kept.

The order is the order of a seeded hash of the content, so that any stretch is a random sample, and training needs no
shuffling. A local corpus is ordered as a whole, through scratch files where it is larger than memory should hold. A
hub data set is streamed, so it is ordered within blocks of BLOCK documents, and reading can stop early.

Memory: a block, or a 1/BUCKETS part of a local corpus; what `duplicates` says; 10 MB for the benchmarks.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from teacher_dump.corpus.document import Document
from teacher_dump.corpus.drop_log import Dropped
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.benchmark_texts import AUTO, HOW_TO_GET_HUMANEVAL, load, portable_names
from teacher_dump.corpus.filters.decontamination import THRESHOLD, Contamination
from teacher_dump.corpus.filters.dedup import ExactDuplicates, NearDuplicates
from teacher_dump.corpus.filters.licences import allowed
from teacher_dump.corpus.filters.rules import Filters, generated, licence_problem, too_odd
from teacher_dump.corpus.readers import sources
from teacher_dump.corpus.readers.raw import Raw

BLOCK = 10_000
"""Documents of a streamed data set that are ordered at a time."""
BUCKETS = 128
"""Parts in which a local corpus is ordered."""
BUCKET_MEMORY = 2_000_000
"""Bytes of a part that wait in memory; a larger part waits in a scratch file."""


@dataclass(kw_only=True, slots=True)
class Corpus:
    """Documents in order. Iterating fills `counts` and `dropped` anew."""

    data: str
    seed: int
    max_documents: int | None = None
    filters: Filters | None = None
    """None keeps every text that is not blank, once."""
    counts: Counter[str] = field(default_factory=Counter)
    """Documents read, and dropped by each filter."""
    dropped: Dropped | None = None
    """Gets a line for each document that was dropped."""

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents. Raises DumpError where the source cannot be read."""
        self.counts.clear()
        if self.dropped is not None:
            self.dropped.clear()

        def place(document: Document) -> bytes:
            return hashlib.sha256(f"{self.seed}/{document.sha256}".encode()).digest()

        kept = self._kept(self._read())
        ordered = _in_blocks(kept, place) if sources.is_hub_id(self.data) else _in_buckets(kept, place)
        return islice(ordered, self.max_documents)

    def drop(self, document: Document, why: str, detail: str = "") -> None:
        """Count a document as dropped, and note it."""
        self.counts[f"dropped: {why}"] += 1
        if self.dropped is not None:
            self.dropped.add(document, why, detail)

    def _read(self) -> Iterator[tuple[Document, str | None]]:
        """Yield each text that is Unicode, with its licence: None where the corpus has no field for it."""
        has_field = False
        for raw in sources.read(self.data, self.counts):
            self.counts["documents read"] += 1
            problem, text, encoded = _decoded(raw)
            # A row without a field that other rows have says nothing; a corpus without the field cannot.
            has_field = has_field or raw.licence is not None
            document = Document(
                text=text,
                source=raw.source,
                path=raw.path,
                licence=raw.licence or "",
                sha256=hashlib.sha256(encoded).hexdigest(),
            )
            if problem:
                self.drop(document, *problem)
            else:
                yield document, document.licence if has_field else None

    def _kept(self, documents: Iterable[tuple[Document, str | None]]) -> Iterator[Document]:
        exact = ExactDuplicates()
        if self.filters is None:
            for document, _ in documents:
                if not document.text.strip():
                    self.drop(document, "blank")
                elif (first := exact.first(document.text, document.sha256)) is not None:
                    self.drop(document, "exact duplicate", f"of {first}")
                else:
                    yield document
            return
        filters, allow = self.filters, allowed(self.filters.licences)
        near = NearDuplicates(filters.near_duplicates) if filters.near_duplicates else None
        contamination = Contamination(load(filters.decontaminate))
        for document, licence in documents:
            text = document.text
            if (odd := too_odd(text, filters)) is not None:
                self.drop(document, *odd)
            elif (problem := licence_problem(licence, allow)) is not None:
                self.drop(document, *problem)
            elif not filters.keep_generated and (line := generated(text)) is not None:
                self.drop(document, "generated", line)
            elif (first := exact.first(text, document.sha256)) is not None:
                self.drop(document, "exact duplicate", f"of {first}")
            else:
                tokens = ngrams.code(text)
                if (finding := contamination.find(text, tokens)) is not None:
                    self.drop(document, f"contains {finding.problem.partition('/')[0]}", str(finding))
                elif near and (found := near.most_similar(tokens, document.sha256[:12])) is not None:
                    self.drop(document, "near duplicate", f"of {found[0]}, Jaccard {found[1]:.2f}")
                else:
                    if licence is None and allow is not None:
                        self.counts["licence: no field, not checked"] += 1
                    yield document


def provenance(filters: Filters) -> dict[str, Any]:
    """Return what decides which documents are kept: the settings, the benchmarks by digest, the rules' version.

    It is part of a cache's identity: other filters are another cache. Raises DumpError where a benchmark is missing.
    """
    benchmarks = load(filters.decontaminate)
    facts: dict[str, Any] = {
        **filters.to_dict(),
        "decontaminate": portable_names(filters.decontaminate),
        "lexer": ngrams.VERSION,
        "decontamination_threshold": THRESHOLD,
        "checked_against": [b.to_dict() for b in benchmarks],
    }
    if filters.decontaminate == AUTO and not benchmarks:
        facts["not_checked"] = f"humaneval: {HOW_TO_GET_HUMANEVAL}"
    return facts


def _decoded(raw: Raw) -> tuple[tuple[str, str] | None, str, bytes]:
    """Return why a document has no usable text or None, the text, and the bytes that its digest is of."""
    if raw.problem is not None:
        return raw.problem, "", raw.text if isinstance(raw.text, bytes) else raw.text.encode()
    try:
        text = raw.text.decode("utf-8") if isinstance(raw.text, bytes) else raw.text
        return None, text, text.encode("utf-8")
    except UnicodeDecodeError as error:
        return ("not UTF-8", f"byte {error.start}"), "", bytes(error.object)
    except UnicodeEncodeError as error:
        return ("lone surrogates", f"character {error.start}"), "", error.object.encode("utf-8", "replace")


def _in_blocks(documents: Iterator[Document], place: Callable[[Document], bytes]) -> Iterator[Document]:
    while block := list(islice(documents, BLOCK)):
        yield from sorted(block, key=place)


def _in_buckets(documents: Iterator[Document], place: Callable[[Document], bytes]) -> Iterator[Document]:
    """Yield all documents in order: an external bucket sort."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.SpooledTemporaryFile(max_size=BUCKET_MEMORY)) for _ in range(BUCKETS)]
        for document in documents:
            where = place(document)
            pickle.dump((where, document), files[where[0] * BUCKETS // 256], protocol=pickle.HIGHEST_PROTOCOL)
        for file in files:
            end = file.tell()
            file.seek(0)
            bucket = []
            while file.tell() < end:
                bucket.append(pickle.load(file))
            file.close()
            bucket.sort(key=lambda item: item[0])
            yield from (document for _, document in bucket)

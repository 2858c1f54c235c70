"""Interface of a corpus filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from teacher_dump.corpus.document import Document, Drop
from teacher_dump.corpus.filters.ngrams import Hashes, code_tokens


class Candidate:
    """A document on its way through the filters."""

    def __init__(self, document: Document, licence: str | None) -> None:
        self.document = document
        self.licence = licence
        """SPDX expression, "" where it is not stated, None where the corpus has no field for it."""

    @cached_property
    def tokens(self) -> Hashes:
        """Hashes of the text's code tokens, computed once for all filters."""
        return code_tokens(self.document.text)


Filter = Callable[[Candidate], Drop | None]
"""Decide on one document. A filter that compares documents with each other remembers those it has seen."""

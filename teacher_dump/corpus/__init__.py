"""The documents that the teacher reads: sources, filters, duplicates, decontamination, one order."""

from teacher_dump.corpus.documents import Corpus, Document, provenance
from teacher_dump.corpus.dropped import Dropped
from teacher_dump.corpus.filters import Filters
from teacher_dump.corpus.sources import THE_STACK_FACTS, files_sha256, is_hub_id, pinned, place_sha256, portable

__all__ = [
    "THE_STACK_FACTS",
    "Corpus",
    "Document",
    "Dropped",
    "Filters",
    "files_sha256",
    "is_hub_id",
    "pinned",
    "place_sha256",
    "portable",
    "provenance",
]

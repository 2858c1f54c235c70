"""The documents that the teacher reads: sources, filters, duplicates, decontamination, one order."""

from teacher_dump.corpus.corpus import Corpus, provenance
from teacher_dump.corpus.document import Document
from teacher_dump.corpus.drop_log import Dropped
from teacher_dump.corpus.filters.rules import Filters
from teacher_dump.corpus.readers.sources import THE_STACK_FACTS, files_sha256, is_hub_id, pinned, place_sha256, portable

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

"""Which documents does the teacher read? Sources, filters, duplicates, decontamination, one order."""

from teacher_dump.corpus.documents import Corpus, Document, provenance
from teacher_dump.corpus.dropped import Dropped
from teacher_dump.corpus.filters import Filters
from teacher_dump.corpus.sources import THE_STACK_FACTS, is_hub_id, pinned

__all__ = ["THE_STACK_FACTS", "Corpus", "Document", "Dropped", "Filters", "is_hub_id", "pinned", "provenance"]

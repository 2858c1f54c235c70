"""Order of the documents: by a seeded hash of their content.

Any stretch of the order is a random sample of the corpus, so that training needs no shuffling. A local corpus is
ordered as a whole by an external bucket sort. A streamed data set is ordered in blocks of BLOCK_DOCUMENTS, so that
reading can stop early.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar

from teacher_dump.corpus.document import Document

BLOCK_DOCUMENTS = 10_000
"""Documents of a streamed data set that are ordered together."""
BUCKETS = 128
"""Number of buckets that a local corpus is distributed over."""
BUCKET_MEMORY = 2_000_000
"""Bytes of a bucket that are held in memory; a larger bucket is moved to a scratch file."""

_Item = TypeVar("_Item")
SortKey = Callable[[Document], bytes]


def sort_key(seed: int) -> SortKey:
    """Return the function that gives a document's place in the order: a seeded hash of its digest."""

    def key(document: Document) -> bytes:
        return hashlib.sha256(f"{seed}/{document.sha256}".encode()).digest()

    return key


def in_blocks(documents: Iterator[_Item], key: Callable[[_Item], bytes]) -> Iterator[_Item]:
    """Yield the documents, or other items, ordered inside each block of BLOCK_DOCUMENTS."""
    while block := list(islice(documents, BLOCK_DOCUMENTS)):
        yield from sorted(block, key=key)


def in_buckets(documents: Iterator[_Item], key: Callable[[_Item], bytes]) -> Iterator[_Item]:
    """Yield all documents, or other items, in order. Memory: one bucket, plus BUCKET_MEMORY for each of the others."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.SpooledTemporaryFile(max_size=BUCKET_MEMORY)) for _ in range(BUCKETS)]
        for document in documents:
            place = key(document)
            pickle.dump((place, document), files[place[0] * BUCKETS // 256], protocol=pickle.HIGHEST_PROTOCOL)
        for file in files:
            end = file.tell()
            file.seek(0)
            bucket = []
            while file.tell() < end:
                bucket.append(pickle.load(file))
            file.close()
            bucket.sort(key=lambda item: item[0])
            yield from (document for _, document in bucket)

"""Filters of exact and near duplicates. The first document of a group of duplicates is kept.

Exact duplicates have the same text after normalisation of line ends, white space at the ends of lines, and blank lines
around the text. Near duplicates have a Jaccard similarity of their sets of five-token shingles that is at least the
threshold. MinHash (datasketch) with 128 permutations estimates it. The bands of an LSH index find a pair at the
threshold with probability 0.99; the signatures of each candidate are then compared (standard error 0.03 at 0.85).

Memory: about 150 bytes per document for exact duplicates. For near duplicates, some kB for each of the last HORIZON to
2 * HORIZON documents (measured by benchmarks/corpus_filters.py). The index is renewed to bound its size, so near
duplicates further apart are not found. For tens of millions of documents, use a corpus that was deduplicated as a
whole, such as The Stack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.filters.base import Candidate
from teacher_dump.corpus.filters.ngrams import Hashes, ngrams
from teacher_dump.errors import DumpError

SHINGLE_TOKENS = 5
PERMUTATIONS = 128
HORIZON = 200_000
"""Documents of one generation of the index: two generations are searched."""
_RECALL = 0.99
"""Probability that a pair at the threshold becomes a candidate."""


class ExactDuplicates:
    """Drop a text that was seen before."""

    def __init__(self) -> None:
        self._first: dict[bytes, bytes] = {}
        """Digest of the normalised text to the start of the first document's digest."""

    def __call__(self, candidate: Candidate) -> Drop | None:
        """Return the first document with this text as the detail; None for the first one itself."""
        document = candidate.document
        normalised = "\n".join(map(str.rstrip, document.text.removeprefix("\ufeff").splitlines())).strip("\n")
        key = hashlib.blake2b(normalised.encode(), digest_size=16).digest()
        start = bytes.fromhex(document.sha256)[:6]
        first = self._first.setdefault(key, start)
        return None if first is start else Drop("exact duplicate", f"of {first.hex()}")


class NearDuplicates:
    """Drop a document that is nearly the same as a kept one.

    Args:
        threshold: Least Jaccard similarity of a near duplicate.

    Raises:
        DumpError: The package datasketch is not installed.
    """

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]  # it ships no types
        except ImportError:
            raise DumpError(
                "near duplicates: found no datasketch, expected it; pip install 'teacherless[dump]', or switch the "
                "filter off with --near-duplicates 0"
            ) from None
        bands, rows = _bands(threshold)
        self._threshold = threshold
        self._empty = MinHash(PERMUTATIONS, hashfunc=int)
        self._new_index: Callable[[], Any] = lambda: MinHashLSH(
            num_perm=PERMUTATIONS,
            params=(bands, rows),
            hashfunc=lambda band: hashlib.blake2b(band, digest_size=8).digest(),
        )
        self._generations: list[tuple[Any, dict[str, Any]]] = [(self._new_index(), {})]

    def __call__(self, candidate: Candidate) -> Drop | None:
        """Compare a document with the kept ones; remember it where it is kept."""
        match = self.match_or_add(candidate.tokens, candidate.document.sha256[:12])
        return None if match is None else Drop("near duplicate", f"of {match[0]}, Jaccard {match[1]:.2f}")

    def match_or_add(self, tokens: Hashes, key: str) -> tuple[str, float] | None:
        """Return the key and the similarity of the most similar kept document; None adds this one.

        Args:
            tokens: Code tokens of the document.
            key: Name of the document.
        """
        shingles = ngrams(tokens, SHINGLE_TOKENS)
        if not len(shingles):
            return None
        signature = self._empty.copy()
        signature.update_batch((shingles >> shingles.dtype.type(32)).tolist())
        similarity, nearest = max(
            (
                (float((signature.hashvalues == kept[other]).mean()), other)
                for index, kept in self._generations
                for other in index.query(signature)
            ),
            default=(0.0, ""),
        )
        if similarity >= self._threshold:
            return nearest, similarity
        index, kept = self._generations[-1]
        if len(kept) >= HORIZON:
            index, kept = self._new_index(), {}
            self._generations = [self._generations[-1], (index, kept)]
        index.insert(key, signature, check_duplication=False)
        kept[key] = signature.hashvalues
        return None


def _bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows) with the fewest candidates among those that reach the recall at the threshold."""
    for rows in range(PERMUTATIONS // 2, 0, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return PERMUTATIONS, 1

"""Was this document seen before, exactly or nearly?

Exactly: the same text but for line ends, white space at the ends of lines and blank lines around. Nearly: the Jaccard
similarity of two documents' sets of five-token shingles, estimated by MinHash (datasketch) with 128 permutations, is
at least the threshold. A document is compared with those that were kept; the first of a group stays. Candidates come
from an LSH index whose bands find a pair at the threshold with probability 0.99, and are then checked by their
signatures (standard error 0.03 at 0.85).

Memory: about 150 bytes per document for exact duplicates, and for near ones some kB for each of the last HORIZON to
2 * HORIZON documents (benchmarks/corpus_filters.py measures it): the index is renewed so that its size is bounded, and
near duplicates further apart are not found. For tens of millions of documents take a corpus that was deduplicated as a
whole (The Stack is).
"""

from __future__ import annotations

import hashlib
from typing import Any

from teacher_dump.corpus.filters.ngrams import Hashes, ngrams

SHINGLE = 5
"""Tokens of a shingle."""
PERMUTATIONS = 128
HORIZON = 200_000
"""Documents of one generation of the index: two generations are searched."""
_FOUND = 0.99
"""Probability that a pair at the threshold becomes a candidate."""


class ExactDuplicates:
    """The texts seen so far."""

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}

    def first(self, text: str, sha256: str) -> str | None:
        """Return the start of the digest of the first document with this text, or None: then this is it."""
        plain = "\n".join(map(str.rstrip, text.removeprefix("\ufeff").splitlines())).strip("\n")
        key = hashlib.blake2b(plain.encode(), digest_size=16).digest()
        mine = bytes.fromhex(sha256)[:6]
        found = self._seen.setdefault(key, mine)
        return None if found is mine else found.hex()


class NearDuplicates:
    """The documents kept so far, by their signatures. Raises DumpError where datasketch is not installed."""

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            from teacher_dump.errors import DumpError

            raise DumpError(
                "near duplicates: found no datasketch, expected it; pip install 'teacherless[dump]', or switch the "
                "filter off with --near-duplicates 0"
            ) from None
        bands, rows = _bands(threshold)
        self.threshold = threshold
        self._empty = MinHash(PERMUTATIONS, hashfunc=int)
        self._index = lambda: MinHashLSH(
            num_perm=PERMUTATIONS,
            params=(bands, rows),
            hashfunc=lambda band: hashlib.blake2b(band, digest_size=8).digest(),
        )
        self._generations: list[tuple[Any, dict[str, Any]]] = [(self._index(), {})]

    def most_similar(self, tokens: Hashes, key: str) -> tuple[str, float] | None:
        """Return the key and the similarity of a kept document that is a near duplicate, or None: then it is kept."""
        shingles = ngrams(tokens, SHINGLE)
        if not len(shingles):
            return None
        signature = self._empty.copy()
        signature.update_batch((shingles >> shingles.dtype.type(32)).tolist())
        best = max(
            (
                (float((signature.hashvalues == kept[other]).mean()), other)
                for index, kept in self._generations
                for other in index.query(signature)
            ),
            default=(0.0, ""),
        )
        if best[0] >= self.threshold:
            return best[1], best[0]
        index, kept = self._generations[-1]
        if len(kept) >= HORIZON:
            index, kept = self._index(), {}
            self._generations = [self._generations[-1], (index, kept)]
        index.insert(key, signature, check_duplication=False)
        kept[key] = signature.hashvalues
        return None


def _bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows): the fewest candidates among those that find a pair at the threshold."""
    for rows in range(PERMUTATIONS // 2, 0, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _FOUND:
            return bands, rows
    return PERMUTATIONS, 1

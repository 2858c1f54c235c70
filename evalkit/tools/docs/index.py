"""Search in an index of documentation: names first, then words.

    with DocsIndex.open(Path("docs.db")) as index:
        for entry in index.search("least squares", limit=5):
            print(entry.text())

The order of hits: names that the query spells out, names that begin with or hold one of its names, then BM25 of the
query's words, in which a word of the name counts most.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index_file import OpenedIndex, open_index
from evalkit.tools.docs.words import query_names, query_words

_WEIGHTS = (4.0, 2.0, 1.0)
"""BM25 weights of words in the name, the summary, and the rest of the docstring."""


class DocsIndex:
    """A checked index. Close it, or use it as a context manager; threads may share it."""

    def __init__(self, opened: OpenedIndex) -> None:
        self._database, self._lock = opened.database, threading.Lock()
        self.sha256, self.packages = opened.sha256, opened.packages

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the index at `path`.

        Raises:
            EvalError: The file is missing, is no index, has another version, or is damaged.
        """
        return cls(open_index(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the memory of the index."""
        with self._lock:
            self._database.close()

    def to_dict(self) -> dict[str, Any]:
        """Return what a result records of the index."""
        return {"sha256": self.sha256, "packages": list(self.packages)}

    def search(self, query: str, limit: int) -> list[DocsEntry]:
        """Return at most `limit` entries that fit `query`, the best first; none for a query without words."""
        if limit < 1:
            return []
        with self._lock:
            found: dict[int, None] = {}
            for number in self._numbers(query, limit):
                found[number] = None
                if len(found) == limit:
                    break
            return [self._entry(number) for number in found]

    def entry(self, name: str) -> DocsEntry | None:
        """Return the entry with this public path, whatever its case; None if there is none."""
        with self._lock:
            return next((self._entry(number) for number in self._spelled(name.lower(), whole=True)), None)

    def _numbers(self, query: str, limit: int) -> Iterator[int]:
        """Yield entries in the order of hits, some of them twice."""
        names = query_names(query)
        for name in names:
            spelled = list(self._spelled(name))
            # A program may give the package another name: `np.where`.
            yield from spelled or self._spelled(name.partition(".")[2] or name)
        for name in names:
            yield from self._partial(name, limit)
        yield from self._by_words(query_words(query), limit)

    def _spelled(self, name: str, *, whole: bool = False) -> Iterator[int]:
        """Yield the entries whose path is `name` or, unless `whole`, ends with it."""
        rows = self._database.execute(
            "SELECT entry FROM names WHERE tail = ?1 AND (path = ?2 OR ?3 AND substr(path, -length(?4)) = ?4)"
            " ORDER BY length(path), path",
            (name.rpartition(".")[2], name, not whole, f".{name}"),
        )
        yield from (number for (number,) in rows)

    def _partial(self, name: str, limit: int) -> Iterator[int]:
        """Yield the entries that hold `name` in their path: first those whose last part begins with its last part."""
        tail = name.rpartition(".")[2]
        rows = self._database.execute(
            "SELECT entry FROM names WHERE instr(path, ?1)"
            " ORDER BY substr(tail, 1, length(?2)) != ?2, NOT instr(tail, ?2), length(path), path LIMIT ?3",
            (name, tail, limit + 1),
        )
        yield from (number for (number,) in rows)

    def _by_words(self, words: list[str], limit: int) -> Iterator[int]:
        if not words:
            return
        rows = self._database.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, {', '.join(map(str, _WEIGHTS))}), rowid"
            " LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), limit),
        )
        yield from (number for (number,) in rows)

    def _entry(self, number: int) -> DocsEntry:
        row: sqlite3.Row | tuple[Any, ...] = self._database.execute(
            "SELECT name, kind, signature, summary, parameters, returns, examples FROM entries WHERE id = ?", (number,)
        ).fetchone()
        name, kind, signature, summary, parameters, returns, examples = row
        return DocsEntry(
            name=name,
            kind=kind,
            signature=signature,
            summary=summary,
            parameters=tuple(json.loads(parameters)),
            returns=returns,
            examples=examples,
        )

"""`logit-shards hydrate`: restore removed tokens from the user's copy of the corpus and the cache's tokenizer.

A document is found by the sha256 of its bytes, and tokenised once and as a whole, as for the dump. A row is the slice
of its ids that covers the row's bytes. The row's digest verifies the slice (`shards.edit.hydrate`), so that another
release of a tokenizer library that tokenises a text differently is detected.

The corpus is read once. Tokens are stored in a scratch file, 4 bytes each, until their shard is written.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from shards.runtime.progress import progress_bar

if TYPE_CHECKING:
    from shards.edit.hydrate import HydratedCache, MissingRow, RowWithoutTokens
    from shards.read import Cache
    from teacher_dump.corpus.document import Document

MISSING_NAME = "missing.jsonl"
_SHOWN_ROWS = 10

ProgressFactory = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Function from a title and a number of bytes to a context that yields the function to call with bytes done."""


@click.command("hydrate")
@click.argument("path")
@click.option("--data", required=True, metavar="CORPUS", help="Your copy of the text: as for teacher-dump.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def command(path: str, data: str, out: Path) -> None:
    """Restore the tokens of the cache at PATH, published without them, and report the rows that could not be restored.

    Those rows are listed in missing.jsonl in the folder of the result.
    """
    from shards.read import open as open_cache

    cache = open_cache(path)
    result = hydrate(cache, data, out, progress=progress_bar)
    click.echo(
        f"{out}: hydrated {result.cache.rows:,} of {cache.rows:,} rows, {result.cache.tokens:,} tokens, "
        f"manifest {result.cache.manifest_sha256[:12]}"
    )
    if result.missing:
        for reason, count in Counter(row.why for row in result.missing).most_common():
            click.echo(f"could not be hydrated: {count:,} rows, {reason}", err=True)
        for row in result.missing[:_SHOWN_ROWS]:
            info = row.info
            click.echo(f"  {info.source}/{info.path} window {info.window} ({info.document[:12]})", err=True)
        click.echo(f"all of them are listed in {out / MISSING_NAME}", err=True)


def hydrate(cache: Cache, data: str, out: Path, *, progress: ProgressFactory | None = None) -> HydratedCache:
    """Write a cache with its tokens to a folder.

    Args:
        cache: A cache without tokens.
        data: The corpus, as for `teacher-dump --data`.
        out: Folder of the result.
        progress: Makes the progress display.

    Raises:
        ShardError: The cache has its tokens, its tokenizer is not the one in the manifest, the corpus cannot be read,
            or no row could be restored.
    """
    from shards.edit import hydrate as records
    from shards.storage.transfer import ignore_bytes
    from teacher_dump.corpus.corpus import Corpus

    rows: dict[str, list[RowWithoutTokens]] = {}
    for need in records.rows_without_tokens(cache):
        rows.setdefault(need.info.document, []).append(need)
    tokenizer = _load_tokenizer(cache)
    with _CandidateTokens() as candidates:
        absent = dict(rows)
        # Filters of the dump may have kept either of two duplicates: only its settings say which.
        for document in Corpus(data=data, seed=0).unfiltered():
            if (needs := absent.pop(document.sha256, None)) is not None:
                candidates.add(document, needs, tokenizer, cache.manifest.tokenizer.prefix_tokens)
                if not absent:
                    break
        missing_numbers = {need.number for needs in absent.values() for need in needs}

        def candidates_of(number: int) -> Sequence[npt.NDArray[np.int32]] | str:
            return "the document is not in the corpus" if number in missing_numbers else candidates.of_row(number)

        num_bytes = sum(shard.bytes for shard in cache.manifest.shards)
        with contextlib.nullcontext() if progress is None else progress("hydrating", num_bytes) as on_bytes:
            result = records.hydrate(cache, out, candidates_of, on_bytes=on_bytes or ignore_bytes)
    _write_missing(result.missing, out / MISSING_NAME)
    return result


def _load_tokenizer(cache: Cache) -> Any:
    """Load a cache's tokenizer, after a check of its fingerprint."""
    from shards.model_files.tokenizer import TokenizerRules
    from teacher_dump.errors import DumpError

    folder, expected = cache.tokenizer_dir, cache.manifest.tokenizer.fingerprint
    if (actual := TokenizerRules.load(folder).fingerprint()) != expected:
        raise DumpError(
            f"{folder}: found a tokenizer with fingerprint {actual[:12]}, expected {expected[:12]} from the manifest; "
            "publish or fetch the cache again"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DumpError("hydrate: found no transformers, expected it; pip install 'teacherless[dump]'") from None
    return AutoTokenizer.from_pretrained(folder)


class _CandidateTokens:
    """Token lists that rows may have had, in a scratch file. Use it in a `with` block."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[int, list[tuple[int, int]]] = {}
        """Offset and length of each candidate, by row number."""

    def __enter__(self) -> _CandidateTokens:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(
        self, document: Document, needs: Iterable[RowWithoutTokens], tokenizer: Any, prefix: tuple[int, ...]
    ) -> None:
        """Store each slice of a document's ids that a row can be.

        A slice begins at the row's first byte, ends at its last one and has the row's length. Where a character is
        split into several tokens, more than one slice qualifies: they all begin at the same byte.
        """
        from teacher_dump.tasks.windowing import byte_offsets

        text = document.text
        encoded = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
        ids, spans = encoded["input_ids"][0], encoded["offset_mapping"][0]
        offsets = byte_offsets(text, [*(start for start, _ in spans), len(text)])
        for need in needs:
            length = need.num_tokens - len(prefix)
            for begin in np.flatnonzero(offsets == need.info.byte_start):
                if begin + length < len(offsets) and offsets[begin + length] == need.info.byte_end:
                    tokens = np.array([*prefix, *ids[begin : begin + length]], np.int32)
                    self._places.setdefault(need.number, []).append((self._file.seek(0, 2), len(tokens)))
                    self._file.write(tokens.tobytes())

    def of_row(self, number: int) -> list[npt.NDArray[np.int32]]:
        """Return the candidates of a row."""
        return list(self._read(number))

    def _read(self, number: int) -> Iterator[npt.NDArray[np.int32]]:
        for offset, length in self._places.get(number, ()):
            self._file.seek(offset)
            yield np.frombuffer(self._file.read(4 * length), np.int32)


def _write_missing(missing: Sequence[MissingRow], path: Path) -> None:
    """Write the list of rows that could not be restored, if there are any."""
    from shards.storage.atomic import write_atomic

    lines = [
        json.dumps(
            {
                "document": row.info.document,
                "window": row.info.window,
                "source": row.info.source,
                "path": row.info.path,
                "why": row.why,
            }
        )
        for row in missing
    ]
    if lines:
        write_atomic(path, ("\n".join(lines) + "\n").encode())

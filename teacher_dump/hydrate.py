"""How do removed tokens come back? From the user's own copy of the corpus and the cache's own tokenizer.

A document is found by the sha256 of its bytes and tokenised once and whole, as for the dump; a row is the slice of
its ids that covers the row's bytes. That the slice is the original one is not believed but proved, by the digest
of the row (`shards.edit.hydrate`): another release of a tokenizer library that cuts a text otherwise is noticed.

The corpus is read once. Tokens wait in a scratch file beside the result, 4 bytes each, until their shard is written.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click
import numpy as np
import numpy.typing as npt

from shards.cli import bytes_bar

MISSING_NAME = "missing.jsonl"
_SHOWN = 10


@click.command("hydrate")
@click.argument("path")
@click.option("--data", required=True, metavar="CORPUS", help="Your copy of the text: as for teacher-dump.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
def command(path: str, data: str, out: Path) -> None:
    """Put the tokens back into the cache at PATH, published without them, and say which rows could not be.

    What is missing is listed in missing.jsonl in the folder of the result.
    """
    from shards.read import open as open_cache

    cache = open_cache(path)
    done = hydrate(cache, data, out, bar=bytes_bar)
    click.echo(
        f"{out}: hydrated {done.cache.rows:,} of {cache.rows:,} rows, {done.cache.tokens:,} tokens, "
        f"manifest {done.cache.manifest_sha256[:12]}"
    )
    if done.missing:
        for why, count in Counter(m.why for m in done.missing).most_common():
            click.echo(f"could not be hydrated: {count:,} rows, {why}", err=True)
        for m in done.missing[:_SHOWN]:
            click.echo(f"  {m.info.source}/{m.info.path} window {m.info.window} ({m.info.document[:12]})", err=True)
        click.echo(f"all of them are listed in {out / MISSING_NAME}", err=True)


def hydrate(cache: Any, data: str, out: Path, *, bar: Any = None) -> Any:
    """Write the cache with its tokens to folder `out` and return `shards.edit.hydrate.Hydrated`.

    Raises ShardError where the cache has its tokens, its tokenizer is not what the manifest says, the corpus cannot
    be read, or not one row could be hydrated.
    """
    from shards.edit import hydrate as records
    from shards.model_files.tokenizer import TokenizerRules
    from shards.storage.atomic import write_atomic
    from shards.storage.store import ignore_bytes
    from teacher_dump.corpus import Corpus
    from teacher_dump.errors import DumpError

    wanted: dict[str, list[Any]] = {}
    for need in records.needs(cache):
        wanted.setdefault(need.info.document, []).append(need)
    folder, expected = cache.tokenizer_dir, cache.manifest.tokenizer.fingerprint
    if (found := TokenizerRules.load(folder).fingerprint()) != expected:
        raise DumpError(
            f"{folder}: found a tokenizer with fingerprint {found[:12]}, the manifest says {expected[:12]}; "
            "publish or fetch the cache again"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DumpError("hydrate: found no transformers, expected it; pip install 'teacherless[dump]'") from None
    tokenizer = AutoTokenizer.from_pretrained(folder)

    prefix = cache.manifest.tokenizer.prefix_tokens
    with tempfile.TemporaryFile() as scratch:
        places: dict[int, list[tuple[int, int]]] = {}
        there: set[str] = set()
        for document in Corpus(data=data, seed=0):
            if (rows := wanted.get(document.sha256)) is not None:
                there.add(document.sha256)
                _slice(document.text, rows, tokenizer, prefix, scratch, places)
                if len(there) == len(wanted):
                    break
        absent = {n.number for d, rows in wanted.items() if d not in there for n in rows}

        def candidates(number: int) -> Sequence[npt.NDArray[np.int32]] | str:
            if number in absent:
                return "the document is not in the corpus"
            return [_read(scratch, offset, length) for offset, length in places.get(number, ())]

        if bar is None:
            done = records.hydrate(cache, out, candidates, on_bytes=ignore_bytes)
        else:
            with bar("hydrating", sum(s.bytes for s in cache.manifest.shards)) as on_bytes:
                done = records.hydrate(cache, out, candidates, on_bytes=on_bytes)
    lines = [
        json.dumps(
            {
                "document": m.info.document,
                "window": m.info.window,
                "source": m.info.source,
                "path": m.info.path,
                "why": m.why,
            }
        )
        for m in done.missing
    ]
    if lines:
        write_atomic(out / MISSING_NAME, ("\n".join(lines) + "\n").encode())
    return done


def _slice(
    text: str,
    rows: Sequence[Any],
    tokenizer: Any,
    prefix: tuple[int, ...],
    scratch: IO[bytes],
    places: dict[int, list[tuple[int, int]]],
) -> None:
    """Append to `scratch` each slice of the document's ids that a row can be, and note its place.

    A slice begins at the row's first byte, ends at its last and has the row's length. There can be more than one
    where a character is cut into several tokens: they all begin at the same byte.
    """
    encoded = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    ids, spans = encoded["input_ids"][0], encoded["offset_mapping"][0]
    widths = np.ones(len(text), np.int64) if text.isascii() else np.array([len(c.encode()) for c in text], np.int64)
    bytes_before = np.concatenate(([0], np.cumsum(widths)))
    offsets = bytes_before[[*(s for s, _ in spans), len(text)]]
    for need in rows:
        count = need.num_tokens - len(prefix)
        for begin in np.flatnonzero(offsets == need.info.byte_start):
            if begin + count < len(offsets) and offsets[begin + count] == need.info.byte_end:
                tokens = np.array([*prefix, *ids[begin : begin + count]], np.int32)
                places.setdefault(need.number, []).append((scratch.seek(0, 2), len(tokens)))
                scratch.write(tokens.tobytes())


def _read(scratch: IO[bytes], offset: int, length: int) -> npt.NDArray[np.int32]:
    scratch.seek(offset)
    return np.frombuffer(scratch.read(4 * length), np.int32)

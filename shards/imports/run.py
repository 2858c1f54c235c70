"""Import a folder of Parquet files as a cache.

The cache is built in a temporary folder beside its final one, which is renamed at the end: it is complete or absent.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shards.edit.rewrite import finish
from shards.errors import ShardError
from shards.format.batch import Row
from shards.format.manifest import Manifest, ShardEntry, Teacher, Tokenizer
from shards.format.schema import Layout
from shards.imports.layouts import LAYOUTS, SourceLayout
from shards.imports.parquet import parquet_files, read_rows
from shards.imports.tokenizer_folder import FoundTokenizer, find_tokenizer
from shards.imports.top_k import RowMaker
from shards.model_files.tokenizer_files import write_tokenizer
from shards.read import Cache
from shards.reports.statistics import measure
from shards.storage.atomic import cannot_write, file_sha256, sync_path
from shards.storage.temp_files import is_abandoned, temp_path
from shards.storage.transfer import OnBytes, ignore_bytes
from shards.write import ShardWriter

SHARD_TOKENS = 1_048_576
"""A shard ends with the row that reaches this number of tokens."""
CHUNK_TOKENS = 65_536
"""A chunk ends with the row that reaches this number of tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportRequest:
    """What to import, and what is known of it."""

    layout: str
    """Key of `LAYOUTS`."""
    path: Path
    """Parquet file, or folder of them."""
    tokenizer: str
    """Folder of the teacher's tokenizer, or its name on the hub."""
    teacher: str = "not known"
    """Name of the teacher."""
    licence: str = ""
    """Licence of the teacher, "" if unknown."""
    vocab_size: int | None = None
    """Number of ids of the teacher's distribution; by default those of the tokenizer, and DistillKit's `d`."""
    is_renormalised: bool = False
    """Whether probabilities are those among the stored ids, so that the mass of the others is not known."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns, see `shards.imports.layouts.COLUMNS`."""
    compression: Path | None = None
    """File of DistillKit's settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """The result of an import."""

    cache: Cache
    counts: dict[str, int]
    """Numbers of what was left out, by name."""
    in_head: float
    """Share of positions whose realised token is in the head. A low one suggests rows that are shifted."""


def import_cache(request: ImportRequest, out: Path, *, on_bytes: OnBytes = ignore_bytes) -> ImportResult:
    """Write a cache from what another tool stored.

    Args:
        request: The files, and what is known of them.
        out: Folder of the cache; empty or missing.
        on_bytes: Progress callback. It gets the bytes of the files twice: for their digests, and for their rows.

    Raises:
        ShardError: If a file, a row or the request cannot be used. The message names file, row and column.
        StoreError: If the cache cannot be written.
    """
    files = parquet_files(request.path)
    layout = LAYOUTS[request.layout](files[0], request.columns, request.compression)
    tokenizer = find_tokenizer(request.tokenizer)
    with _folder_that_becomes(out) as folder:
        table = tokenizer.rules.token_bytes()
        num_ids = max(max(table) + 1, layout.compression.d if layout.compression else 0)
        maker = RowMaker(
            vocab_size=request.vocab_size or num_ids,
            token_bytes=table,
            pad_token=tokenizer.pad_token,
            is_renormalised=request.is_renormalised and "tail" not in layout.columns,
            source=request.path.name,
        )
        draft = _draft(request, layout, tokenizer, maker, folder)
        origin = [{"name": f.name, "bytes": f.stat().st_size, "sha256": _digest(f, on_bytes)} for f in files]
        rows = _Rows(files=files, layout=layout, maker=maker, on_bytes=on_bytes)
        entries = _write_shards(rows, draft.layout, folder)
        manifest = replace(
            draft,
            shards=entries,
            corpus={**draft.corpus, "files": origin, **dict(sorted(maker.counts.items()))},
            tokenizer=replace(draft.tokenizer, prefix_tokens=tokenizer.prefix(rows.first_tokens)),
            settings={**draft.settings, "window_tokens": rows.longest},
        )
        if not entries:
            raise ShardError(f"{request.path}: found no row of two tokens or more, expected at least one")
        report = measure(Cache.of(folder, manifest))
        finish(folder, replace(manifest, report=report))
    cache = Cache.of(out, replace(manifest, report=report))
    return ImportResult(cache=cache, counts=dict(maker.counts), in_head=report["realised_in_head"])


def source_bytes(path: Path) -> int:
    """Return the number of bytes that the progress callback of an import gets in all."""
    return 2 * sum(file.stat().st_size for file in parquet_files(path))


@dataclass(kw_only=True, slots=True)
class _Rows:
    """The rows of records of some files, in order, with what is learned of them on the way."""

    files: list[Path]
    layout: SourceLayout
    maker: RowMaker
    on_bytes: OnBytes
    longest: int = 0
    """Most tokens of a row."""
    first_tokens: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[Row]:
        for file in self.files:
            size, reported = file.stat().st_size, 0
            for where, cells in read_rows(file, self.layout.depths):
                for row in self.maker.rows(self.layout.row(where, cells)):
                    self.longest = max(self.longest, len(row.tokens))
                    self.first_tokens.add(int(row.tokens[0]))
                    yield row
                step = min(size - reported, sum(cell.values.nbytes for cell in cells.values()))
                reported += step
                self.on_bytes(step)
            self.on_bytes(size - reported)


def _draft(
    request: ImportRequest, layout: SourceLayout, tokenizer: FoundTokenizer, maker: RowMaker, folder: Path
) -> Manifest:
    """Return the manifest as far as it is known before the rows are, and copy the tokenizer's files."""
    absent = ["draws", "entropy", "realised", *(["tail"] if maker.is_renormalised else []), "whitespace"]
    meaning = "normalised over the stored ids" if maker.is_renormalised else "of the whole distribution"
    return Manifest(
        layout=Layout(
            # Without draws, threshold and floor have no effect.
            vocab_size=maker.vocab_size,
            temperatures=(),
            threshold=1.0,
            tail_floor=1.0,
            absent=tuple(absent),
        ),
        teacher=Teacher(
            name=request.teacher,
            repo="",
            revision="",
            weights_sha256="",
            licence=request.licence,
            restricts_outputs=False,
            vocab_size=maker.vocab_size,
            parameters=0,
        ),
        tokenizer=Tokenizer(
            fingerprint=tokenizer.rules.fingerprint(),
            vocab_size=max(maker.token_bytes) + 1,
            prefix_tokens=(),
        ),
        engine={"name": "not known", "version": "", "dtype": "", "log_probs": f"as stored, {meaning}"},
        corpus={"source": request.path.name},
        settings={"import": {**layout.settings, "columns": layout.columns}},
        code={"teacherless": importlib.metadata.version("teacherless"), "python": platform.python_version()},
        files=write_tokenizer(tokenizer.folder, folder),
        shards=(),
    )


def _write_shards(rows: _Rows, layout: Layout, folder: Path) -> tuple[ShardEntry, ...]:
    entries: list[ShardEntry] = []
    source = iter(rows)
    row = next(source, None)
    while row is not None:
        number, tokens = f"{len(entries):06d}", 0
        settings: Any = {"layout": layout, "task": number, "fingerprint": "import", "chunk_tokens": CHUNK_TOKENS}
        with ShardWriter(folder, f"{number}.arrow", **settings) as writer:
            while row is not None and tokens < SHARD_TOKENS:
                writer.write(row)
                tokens += len(row.tokens)
                row = next(source, None)
            entries.append(writer.close())
    return tuple(entries)


def _digest(file: Path, on_bytes: OnBytes) -> str:
    digest = file_sha256(file)
    on_bytes(file.stat().st_size)
    return digest


@contextlib.contextmanager
def _folder_that_becomes(out: Path) -> Iterator[Path]:
    """Make a temporary folder that is renamed to `out` when the block ends, and removed if it fails.

    Raises:
        ShardError: If `out` is not empty.
        StoreError: If the folder cannot be made or renamed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardError(f"--out {out}: found a file or a folder with content, expected an empty folder or none")
    out = out.absolute()
    temporary = temp_path(out)
    try:
        for old in out.parent.glob(f".{out.name}.*.part"):
            if is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    try:
        yield temporary
        try:
            os.rename(temporary, out)  # replaces an empty folder
            sync_path(out.parent)
        except OSError as error:
            raise cannot_write(out, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

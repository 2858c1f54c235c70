"""Which documents? Sources of text with their provenance, one set of filters, one order.

`--data` is `stdlib`, a folder, parquet or JSONL files, or a hub data set (`org/name[@revision][:folder]`). Every
document that a filter drops is counted under the filter's name. The order is a seeded hash of the content: a chunk
of rows is then a random sample, and no shuffling is needed in training. A hub data set is streamed, so its order is
taken within blocks of BLOCK documents.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

import zstandard

from teacher_dump.errors import DumpError

BLOCK = 10_000
"""Documents of a streamed data set that are ordered at a time."""
MAX_BYTES = 1_000_000
"""Larger documents are data, not source."""

THE_STACK_FACTS: dict[str, Any] = {
    "documents": 12_962_249,
    "bytes": 64.30e9,
    "cite": "StarCoder, arXiv 2305.06161, table 1, after near-deduplication",
}

_TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_TEXT = ("content", "text", "code")
_SOURCE = ("max_stars_repo_name", "repo_name", "repository", "repo")
_PATH = ("max_stars_repo_path", "path", "file_path")
_LICENCE = ("max_stars_repo_licenses", "licenses", "license", "licence")
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "__pycache__", ".git", ".venv", "node_modules"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text and where it is from."""

    text: str
    source: str
    path: str
    licence: str
    sha256: str
    """Of the text's UTF-8 bytes, hex."""


@dataclass(kw_only=True, slots=True)
class Corpus:
    """Documents in order. Iterating fills `counts`."""

    data: str
    seed: int
    max_documents: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """Documents read, and dropped by each filter."""

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents. Raises DumpError where the source cannot be read."""
        self.counts.clear()
        kept = self._filtered(_raw(self.data))
        if is_hub_id(self.data):
            blocks: Iterable[list[Document]] = iter(lambda: list(islice(kept, BLOCK)), [])
        else:
            blocks = [list(kept)]
        yielded = 0
        for block in blocks:
            block.sort(key=lambda d: hashlib.sha256(f"{self.seed}/{d.sha256}".encode()).digest())
            for document in block:
                if self.max_documents is not None and yielded >= self.max_documents:
                    return
                yielded += 1
                yield document

    def _filtered(self, raw: Iterable[dict[str, Any]]) -> Iterator[Document]:
        seen: set[bytes] = set()
        for item in raw:
            self.counts["documents read"] += 1
            text = item["text"]
            if isinstance(text, bytes):
                try:
                    text = text.decode("utf-8")
                except UnicodeDecodeError:
                    self.counts["dropped: not UTF-8"] += 1
                    continue
            try:
                encoded = text.encode("utf-8")
            except UnicodeEncodeError:
                self.counts["dropped: lone surrogates"] += 1
                continue
            digest = hashlib.sha256(encoded)
            if not text.strip():
                self.counts["dropped: blank"] += 1
            elif len(encoded) > MAX_BYTES:
                self.counts[f"dropped: over {MAX_BYTES:,} bytes"] += 1
            elif digest.digest() in seen:
                self.counts["dropped: exact duplicate"] += 1
            else:
                seen.add(digest.digest())
                yield Document(
                    text=text,
                    source=item["source"],
                    path=item["path"],
                    licence=item["licence"],
                    sha256=digest.hexdigest(),
                )


def is_hub_id(data: str) -> bool:
    """Return whether `--data` names a hub data set rather than something on this machine."""
    return data != "stdlib" and not Path(data).exists() and not data.endswith(_TABLES)


def _raw(data: str) -> Iterator[dict[str, Any]]:
    if data == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        version = ".".join(str(x) for x in _python_version())
        return _folder(root, source=f"cpython {version}", licence="PSF-2.0")
    if is_hub_id(data):
        return _hub(data)
    path = Path(data)
    if path.is_dir():
        files = sorted(file for suffix in _TABLES for file in path.glob(f"**/*{suffix}"))
        return _tables(files) if files else _folder(path, source=path.resolve().name, licence="")
    if not path.is_file():
        raise DumpError(
            f"--data {data}: found no such file, expected a folder, parquet or JSONL files, or a hub data set"
        )
    return _tables([path])


def _python_version() -> tuple[int, int, int]:
    import sys

    return sys.version_info[:3]


def _folder(root: Path, *, source: str, licence: str) -> Iterator[dict[str, Any]]:
    for path in sorted(root.glob("**/*.py")):
        relative = path.relative_to(root)
        if not _SKIPPED_FOLDERS.intersection(relative.parts[:-1]) and path.is_file():
            yield {"text": path.read_bytes(), "source": source, "path": relative.as_posix(), "licence": licence}


def _tables(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        for line, row in enumerate(_parquet(file) if file.suffix == ".parquet" else _jsonl(file)):
            yield _item(row, where=f"{file} row {line}", source=file.name)


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DumpError(f"{file}: not a readable parquet file ({error})") from None


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with _open_text(file) as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DumpError(
                        f"{file} line {number + 1}: not JSON ({error}); expected one object a line"
                    ) from None
                if not isinstance(row, dict):
                    raise DumpError(f"{file} line {number + 1}: found {type(row).__name__}, expected an object")
                yield row


def _open_text(file: Path) -> TextIO:
    if file.suffix == ".zst":
        # A stranger's file: a frame may ask for a large window, the text is streamed.
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file.open("rb"), closefd=True)
        return io.TextIOWrapper(reader, encoding="utf-8")
    if file.suffix == ".gz":
        return cast(TextIO, gzip.open(file, "rt", encoding="utf-8"))
    return file.open(encoding="utf-8")


def _hub(data: str) -> Iterator[dict[str, Any]]:
    name, _, folder = data.partition(":")
    repo, _, revision = name.partition("@")
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise DumpError(f"--data {data}: needs the package {error.name}; pip install 'teacherless[dump]'") from None
    try:
        stream = datasets.load_dataset(
            repo, revision=revision or None, data_dir=folder or None, split="train", streaming=True
        )
        for number, row in enumerate(stream):
            yield _item(row, where=f"{repo} row {number}", source=repo)
    except (datasets.exceptions.DatasetNotFoundError, HfHubHTTPError) as error:
        raise DumpError(
            f"--data {data}: not found, or access is gated ({type(error).__name__}); accept its terms on the hub "
            "and run `hf auth login`, or give --data local files"
        ) from None
    except (ConnectionError, OSError) as error:
        raise DumpError(
            f"--data {data}: the hub cannot be reached ({type(error).__name__}); connect, or give --data local files"
        ) from None


def _item(row: dict[str, Any], *, where: str, source: str) -> dict[str, Any]:
    def first(names: tuple[str, ...], default: Any) -> Any:
        return next((row[n] for n in names if row.get(n) is not None), default)

    text = first(_TEXT, None)
    if not isinstance(text, str | bytes):
        raise DumpError(f"{where}: found columns {', '.join(row)}, expected the text in one of {', '.join(_TEXT)}")
    licence = first(_LICENCE, "")
    return {
        "text": text,
        "source": str(first(_SOURCE, source)),
        "path": str(first(_PATH, where.rsplit(" ", 2)[-1])),
        "licence": " OR ".join(licence) if isinstance(licence, list) else str(licence),
    }

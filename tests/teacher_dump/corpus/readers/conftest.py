"""Files and expectations that the tests of readers share."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


GOOD = {"content": "x = 1\n", "path": "good.py"}


def rows(count: int) -> bytes:
    generator = random.Random(0)
    return b"".join(
        json.dumps({"content": f"x_{i} = '{generator.randbytes(40).hex()}'\n"}).encode() + b"\n" for i in range(count)
    )


def lines(folder: Path, *found: dict[str, Any] | bytes, name: str = "t.jsonl") -> Path:
    raw = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in found]
    (folder / name).write_bytes(b"\n".join(raw) + b"\n")
    return folder / name


def drops(data: Path) -> tuple[list[str], list[dict[str, str]], Counter[str]]:
    """Return the texts, the lines of the list of dropped documents, and the counts."""
    dropped = DropLog()
    corpus = Corpus(data=str(data), seed=0, drop_log=dropped)
    texts = [d.text for d in corpus]
    folder = data if data.is_dir() else data.parent
    target = folder.parent / f"{folder.name}-list"
    target.mkdir(exist_ok=True)
    dropped.save(target)
    listed = [json.loads(line) for line in (target / "dropped.jsonl").read_text().splitlines()]
    assert len(listed) == sum(n for k, n in corpus.counts.items() if k.startswith("dropped: "))
    return texts, listed, corpus.counts

"""Shared boundaries of two tokenizers on Python, and the errors of matching tokens by their strings.

Tokenizes Python files with both tokenizers: the standard library, and a sample of installed packages that a hash of the
paths selects. Counts the shared boundaries and the kinds of spans between them; the share of positions and bytes that
each loss uses; how often the student's token after a shared boundary is not the token with the bytes of the teacher's
token, by kind of token; and how often it lies in the cell of the teacher token's root. This needs no model, because the
text determines the next token. It also measures the windows of a dump: whether the student's tokens of a window equal
those of the whole document, and the speed of alignment (CPU time, one thread).

    python -m benchmarks.tokenizer_alignment --teacher ../shared/data/tokenizers/llama-2 \
        --student ../shared/data/tokenizers/phi-2 --write docs/results/tokenizer_alignment

Prints one JSON object; with --write makes NAME.json, NAME.md and NAME.png.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sysconfig
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from benchmarks import _common
from benchmarks.tokenizer_alignment_page import page, picture
from shards.format.chunk import Chunk, RowInfo
from shards.runtime.machine import describe
from student_train.cross_tokenizer.alignment import align
from student_train.cross_tokenizer.prefix_cells import exact_roots
from student_train.cross_tokenizer.targets import TokenizerPair, cross_targets
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary, load_vocabulary

WINDOW = 1024
TIMED_ROWS = 160
ROUNDS = 9


def main() -> None:
    """Measure both corpora and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--megabytes", type=float, default=4.0, help="largest size of each corpus")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    teacher, student = load_vocabulary(options.teacher), load_vocabulary(options.student)
    start = time.process_time()
    tables = TokenizerPair.of(teacher.strings, student, ("alm", "cells"))
    results: dict[str, Any] = {
        "teacher": Path(options.teacher).name,
        "student": Path(options.student).name,
        "seconds_for_tables": round(time.process_time() - start, 2),
        "machine": describe(),
        "date": _common.today(),
        "megabytes": options.megabytes,
        "rounds": ROUNDS,
        "load": round(os.getloadavg()[0], 1),
    }
    for name, files in (("standard library", standard_library()), ("installed packages", packages())):
        texts = read(files, options.megabytes)
        results[name] = measure(texts, teacher, student, tables)
    print(json.dumps(results, indent=1))
    if options.write:
        _common.write_json(options.write.with_suffix(".json"), results)
        _common.write_page(options.write.with_suffix(".md"), page(results, options.write.name))
        picture(results, options.write.with_suffix(".png"))


def standard_library() -> list[Path]:
    """Return the Python files of the standard library without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in root.rglob("*.py") if "site-packages" not in path.parts and "test" not in path.parts]


def packages() -> list[Path]:
    """Return the Python files of the installed packages."""
    return list(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))


def read(files: list[Path], megabytes: float) -> list[str]:
    """Return texts of about `megabytes`, in the order of a hash of the last three parts of their paths."""

    def key(path: Path) -> bytes:
        return hashlib.sha256("/".join(path.parts[-3:]).encode()).digest()

    texts, size = [], 0
    for path in sorted(files, key=key):
        raw = path.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        if text.strip():
            texts.append(text)
            size += len(raw)
        if size > megabytes * 1e6:
            break
    return texts


def measure(texts: list[str], teacher: Vocabulary, student: Vocabulary, tables: TokenizerPair) -> dict[str, Any]:
    """Count boundaries, spans and errors over all texts."""
    roots = tables.roots
    # The pairs of matching by strings, with whitespace and digits and without them.
    exact = exact_roots(teacher.strings, student, roots, all_kinds=True)
    conservative = exact_roots(teacher.strings, student, roots)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    kept = 0
    for text in texts:
        row = chunk_of(text, teacher)
        met = align([row], teacher.strings, student)
        counts += met.counts
        if not met.rows:
            continue
        kept += 1
        raw = text.encode()
        T, S = row.tokens[len(teacher.prefix or (0,)) :], met.label_P
        counts["bytes"] += len(raw)
        counts["teacher tokens"] += len(T)
        counts["student tokens"] += len(S) + 1
        counts["boundaries"] += len(met.teacher_B)
        t_lengths, s_steps = np.diff(met.teacher_B), np.diff(met.student_B)
        text_ends = np.cumsum(teacher.lengths[row.tokens])[met.teacher_B] - teacher.has_dummy
        sizes = np.diff(text_ends)
        for t, s, size in zip(t_lengths.tolist(), s_steps.tolist(), sizes.tolist(), strict=True):
            name = f"{t}:{s}" if t <= 2 and s <= 2 else "longer"
            kinds[name] += 1
            counts[f"tokens in {name}"] += t
            counts[f"bytes in {name}"] += size
        words = np.flatnonzero(met.word_B)
        if len(words):
            counts["word chunks"] += len(words) - 1
            counts["bytes in words"] += int(text_ends[words[-1]] - text_ends[words[0]])
            counts["student tokens in words"] += int(met.student_B[words[-1]] - met.student_B[words[0]])
        array = np.frombuffer(raw, dtype=np.uint8)
        white = np.isin(array, list(WHITESPACE))
        ends = np.flatnonzero(~white[:-1] & white[1:]) + 1
        counts["word ends"] += len(ends)
        counts["word ends shared"] += int(np.isin(ends, text_ends[met.word_B]).sum())
        lines = np.flatnonzero((array[:-1] == 10) & ~white[1:]) + 1
        counts["line starts"] += len(lines)
        counts["line starts shared"] += int(np.isin(lines, text_ends).sum())
        # The next token at each boundary, on both sides.
        u, v = row.tokens[met.teacher_B + 1].astype(np.int64), met.label_P[met.student_B].astype(np.int64)
        has, hit = exact.root_U[u] >= 0, exact.holds(u, v)
        counts["boundaries with an equal string"] += int(has.sum())
        for token in u[has & ~hit].tolist():
            wrong[kind_of(teacher.strings[token])] += 1
        safe = conservative.root_U[u] >= 0
        counts["conservative boundaries"] += int(safe.sum())
        counts["conservative misses"] += int((safe & ~hit).sum())
        counts["in the cell"] += int(roots.holds(u, v).sum())
    return summarise(counts, kinds, wrong, kept, len(texts)) | windows(texts, teacher, student, tables)


def chunk_of(text: str, teacher: Vocabulary, tokens: list[int] | None = None, window: int = 0, end: int = 0) -> Chunk:
    """Return a text, or given tokens of it, as a chunk of one row without records."""
    ids = teacher.encode([text])[0] if tokens is None else tokens
    all_ids = np.array([*(teacher.prefix or (0,)), *ids], dtype=np.int32)
    none, starts = np.zeros(len(all_ids) - 1, dtype=np.float32), np.zeros(len(all_ids), dtype=np.int64)
    info = RowInfo(
        document="",
        window=window,
        byte_start=window,
        byte_end=end or len(text.encode()),
        source="",
        path="",
        licence="",
    )
    return Chunk(
        rows=(info,), row_starts=np.array([0, len(all_ids)]), tokens=all_ids, label_logp=none, head_starts=starts,
        head_ids=all_ids[:0], head_probs=none[:0], tail_mass=none, draw_starts=starts, draw_ids=all_ids[:0],
        log_z=none[:, None], whitespace_logp=none, entropy=none,
    )  # fmt: skip


def kind_of(raw: bytes) -> str:
    """Return the kind of a token by its bytes."""
    if not raw.strip(b" "):
        return "spaces"
    if not raw.strip():
        return "line feeds and tabs"
    text = raw.strip()
    if text.isdigit():
        return "digits"
    return "words" if any(c > 127 or chr(c).isalpha() or c == 95 for c in text) else "punctuation"


def summarise(counts: Counter[str], kinds: Counter[str], wrong: Counter[str], kept: int, files: int) -> dict[str, Any]:
    """Return the shares that the page shows."""
    T, bytes_, B = counts["teacher tokens"], counts["bytes"], counts["boundaries"]
    chunks = sum(kinds.values())
    mismatched = sum(wrong.values())

    def share(part: int, whole: int) -> float:
        return round(part / max(1, whole), 6)

    return {
        "files": files,
        "files left out": files - kept,
        "bytes": bytes_,
        "teacher tokens": T,
        "student tokens": counts["student tokens"],
        "bytes per teacher token": round(bytes_ / T, 3),
        "bytes per student token": round(bytes_ / counts["student tokens"], 3),
        "shared boundaries per teacher token": share(B, T),
        "word ends that are shared": share(counts["word ends shared"], counts["word ends"]),
        "word ends": counts["word ends"],
        "line starts that are shared": share(counts["line starts shared"], counts["line starts"]),
        "stretches": {
            name: {
                "share": share(count, chunks),
                "teacher tokens": share(counts[f"tokens in {name}"], T),
                "bytes": share(counts[f"bytes in {name}"], bytes_),
            }
            for name, count in kinds.most_common()
        },
        "student tokens per word chunk": round(counts["student tokens in words"] / max(1, counts["word chunks"]), 2),
        "seen by": {
            "alm": {
                "positions": share(counts["student tokens in words"], counts["student tokens"]),
                "bytes": share(counts["bytes in words"], bytes_),
            },
            "cells": {"positions": share(B, counts["student tokens"]), "bytes": None},
            "matched": {
                "positions": share(kinds["1:1"], counts["student tokens"]),
                "bytes": share(counts["bytes in 1:1"], bytes_),
            },
        },
        "boundaries with an equal string": share(counts["boundaries with an equal string"], B),
        "equal string is not the student's token": share(mismatched, B),
        "by kind": {name: share(count, B) for name, count in wrong.most_common()},
        "conservative map is not the student's token": share(counts["conservative misses"], B),
        "student's token is in the cell": share(counts["in the cell"], B),
    }


def windows(texts: list[str], teacher: Vocabulary, student: Vocabulary, tables: TokenizerPair) -> dict[str, Any]:
    """Return how windows of a dump change the student's tokens, and the speed of alignment."""
    from transformers import AutoTokenizer

    from teacher_dump.corpus.document import Document
    from teacher_dump.tasks.windowing import cut_windows as cut

    documents = [
        Document(text=text, source="", path="", licence="", sha256=hashlib.sha256(text.encode()).hexdigest())
        for text in texts
    ]
    fast = AutoTokenizer.from_pretrained(teacher.folder)
    whole = {d.sha256: token_ends(student, d.text.encode(), 0) for d in documents}
    raw_of = {d.sha256: d.text.encode() for d in documents}
    rows: list[Chunk] = []
    equal = total = differ = 0
    kinds: Counter[str] = Counter()
    for window in cut(documents, fast, prefix_tokens=teacher.prefix, window_tokens=WINDOW, counts=kinds):
        info = window.info
        rows.append(chunk_of("", teacher, window.tokens[1:].tolist(), window=info.byte_start, end=info.byte_end))
        inside = {(end, token) for end, token in whole[info.document] if info.byte_start < end <= info.byte_end}
        alone = token_ends(student, raw_of[info.document][info.byte_start : info.byte_end], info.byte_start)
        total += len(inside)
        equal += len(inside & alone)
        differ += inside != alone
    return {
        "windows": len(rows),
        "windows whose tokens alone differ": round(differ / max(1, len(rows)), 4),
        "tokens that are the document's own": round(equal / max(1, total), 5),
        "cuts": {kind: count for kind, count in kinds.items() if kind.startswith("cuts")},
        "teacher tokens per second": speeds(rows[:TIMED_ROWS], teacher, student, tables),
    }


def speeds(rows: list[Chunk], teacher: Vocabulary, student: Vocabulary, tables: TokenizerPair) -> dict[str, int]:
    """Return teacher tokens per second of CPU time, stage by stage."""
    tokens = sum(len(row.tokens) for row in rows)
    batches = [rows[i : i + 4] for i in range(0, len(rows), 4)]

    def tokenize(batch: list[Chunk]) -> object:
        return student.encode([teacher.join(row.tokens.tolist()).decode(errors="ignore") for row in batch])

    def bare(batch: list[Chunk]) -> object:
        return align(batch, teacher.strings, student)

    def chunked(batch: list[Chunk]) -> object:
        return cross_targets(batch, replace(tables, distribution=None))

    rng = np.random.default_rng(0)
    recorded = {id(batch): [with_records(row, teacher, rng) for row in batch] for batch in batches}

    def in_cells(batch: list[Chunk]) -> object:
        return cross_targets(recorded[id(batch)], tables)

    rates = {}
    for name, work in (
        ("student's tokenisation alone", tokenize),
        ("alignment, tokenisation included", bare),
        ("targets of `alm`, tokenisation included", chunked),
        ("targets of `alm` and `cells`, made-up records of 2.5 head ids and 5.5 draws", in_cells),
    ):
        # The fastest run of each batch: on a shared machine other programs disturb every whole pass.
        best = [math.inf] * len(batches)
        for _ in range(ROUNDS):
            for i, batch in enumerate(batches):
                start = time.process_time()
                work(batch)
                best[i] = min(best[i], time.process_time() - start)
        rates[name] = round(tokens / sum(best))
    return rates


def with_records(row: Chunk, teacher: Vocabulary, rng: np.random.Generator) -> Chunk:
    """Return the row with made-up records of the usual size: the label and random other ids."""
    P = len(row.tokens) - 1
    heads, draws = (np.concatenate(([0], np.cumsum(rng.integers(low, high, P)))) for low, high in ((1, 5), (0, 12)))
    usable = np.flatnonzero(teacher.lengths)
    head_ids = rng.choice(usable, heads[-1]).astype(np.int32)
    head_ids[heads[:-1]] = row.tokens[1:]
    return replace(
        row,
        head_starts=heads,
        head_ids=head_ids,
        head_probs=np.full(heads[-1], 0.1, dtype=np.float32),
        tail_mass=np.full(P, 0.5, dtype=np.float32),
        draw_starts=draws,
        draw_ids=rng.choice(usable, draws[-1]).astype(np.int32),
        whitespace_logp=np.log(rng.random(P) + 1e-9).astype(np.float32),
    )


def token_ends(student: Vocabulary, raw: bytes, start: int) -> set[tuple[int, int]]:
    """Return (end, id) of the tokens of a text that begins at byte `start` of its document."""
    ids = student.encode([raw.decode(errors="replace")])[0]
    ends = start - student.has_dummy + np.cumsum(student.lengths[ids])
    return set(zip(ends.tolist(), ids, strict=True))


if __name__ == "__main__":
    main()

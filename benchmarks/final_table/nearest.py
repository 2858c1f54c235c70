"""Measure how near the rows of caches are to the problems of benchmarks, by the rule of --decontaminate.

    python -m benchmarks.final_table.nearest --decontaminate humaneval,mbpp=mbpp.jsonl --out nearest.json CACHE...

A row's nearest problem is the one of whose prompt, solution or test it holds the largest share of n-grams
(`teacher_dump/corpus/filters/decontamination.py`). Rows are read as the students read them: context and response.
MBPP's training part is not compared with, because prompts come from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shards
from benchmarks import _common
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex
from teacher_dump.corpus.filters.ngrams import code_tokens

SHARES = (0.25, THRESHOLD)
"""Shares from which rows are counted."""
SHOWN = 3
"""Nearest rows that the result lists."""


def main() -> None:
    """Write the nearest rows of each cache."""
    parser = _common.parser(__doc__)
    parser.add_argument("--decontaminate", required=True, help="as for teacher-dump")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("caches", nargs="+", type=Path)
    options = parser.parse_args()
    index = ContaminationIndex(load_benchmarks(options.decontaminate, scored_only=True))
    result = {
        "benchmarks": [benchmark.to_dict() for benchmark in index.benchmarks],
        "caches": {path.name: nearest(index, texts(path)) for path in options.caches},
    }
    _common.write_json(options.out, result)


def texts(cache_path: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each row of a cache, special tokens included."""
    cache = shards.open(str(cache_path))
    table = TokenizerRules.load(cache.tokenizer_dir).token_bytes()
    for number in range(len(cache)):
        chunk = cache[number]
        for row, info in enumerate(chunk.rows):
            tokens = chunk.tokens[int(chunk.row_starts[row]) : int(chunk.row_starts[row + 1])]
            yield info.path, b"".join(table.get(int(token), b"") for token in tokens).decode("utf-8", "replace")


def nearest(index: ContaminationIndex, rows: Iterator[tuple[str, str]]) -> dict[str, Any]:
    """Return the number of rows, of those that reach a share, and the nearest ones."""
    found, count = [], 0
    for path, text in rows:
        count += 1
        overlap = index.nearest(text, code_tokens(text))
        if overlap is not None:
            found.append((overlap.share, path, str(overlap)))
    found.sort(reverse=True)
    distinct = list({text: (share, path, text) for share, path, text in reversed(found)}.values())
    distinct.sort(reverse=True)
    return {
        "rows": count,
        "at_least": {f"{share:.0%}": sum(item[0] >= share for item in found) for share in SHARES},
        "nearest": [{"share": share, "path": path, "overlap": text} for share, path, text in distinct[:SHOWN]],
    }


if __name__ == "__main__":
    main()

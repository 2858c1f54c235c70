"""How fast are the corpus filters, and what do they hold?

    python -m benchmarks.corpus_filters --data stdlib [--mbpp mbpp.jsonl]

Processor time of one process over a corpus, filter by filter switched on: MB/s, documents/s, and how many nodes that
prefill 60,000 tokens/s (at 3.37 bytes of Python per token: 0.20 MB/s) one core keeps supplied. And the memory of the
index of near duplicates per document, over documents made of random names.
"""

from __future__ import annotations

import random
import resource
import time

from benchmarks import _common
from teacher_dump.corpus import Corpus, Filters
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.dedup import NearDuplicates
from teacher_dump.corpus.readers import sources

TOKENS_PER_S, BYTES_PER_TOKEN = 60_000, 3.37
OFF = Filters(licences="any", near_duplicates=0, decontaminate="none", keep_generated=True)


def measure(name: str, data: str, filters: Filters | None, repeats: int) -> None:
    """Print the rate of the fastest of some passes."""
    best, corpus, used = float("inf"), Corpus(data=data, seed=0, filters=filters), 0
    num_bytes = sum(len(raw.text) for raw in sources.read(data))
    for _ in range(repeats):
        begin = time.process_time()
        used = sum(1 for _ in corpus)
        best = min(best, time.process_time() - begin)
    rate = num_bytes / best
    nodes = rate / (TOKENS_PER_S * BYTES_PER_TOKEN)
    read = corpus.counts["documents read"]
    print(
        f"{name:45}  {rate / 1e6:6.2f} MB/s  {read / best:7,.0f} documents/s  {nodes:6.1f} nodes  "
        f"{used:,} of {read:,} kept"
    )


def memory(number: int) -> None:
    """Print the resident bytes that the index takes for each document."""
    rng = random.Random(0)
    near = NearDuplicates(0.85)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(number):
        text = " ".join(f"x{rng.randrange(10**6)}" for _ in range(60))
        near.most_similar(ngrams.code(text), f"{n:012x}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"index of near duplicates: {(after - before) * 1024 / number / 1000:.1f} kB per document ({number:,})")


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--mbpp", help="mbpp.jsonl")
    parser.add_argument("--documents", type=int, default=20_000, help="for the memory of the index")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    both = "humaneval" + (f",mbpp={arguments.mbpp}" if arguments.mbpp else "")
    rows: list[tuple[str, Filters | None]] = [
        ("read and ordered only", None),
        ("+ limits, exact duplicates", OFF),
        ("+ near duplicates", Filters(licences="any", keep_generated=True, decontaminate="none")),
        (
            f"+ decontamination ({both.partition('=')[0]}), no near duplicates",
            Filters(licences="any", keep_generated=True, near_duplicates=0, decontaminate=both),
        ),
        ("all", Filters(decontaminate=both)),
    ]
    for name, filters in rows:
        measure(name, arguments.data, filters, arguments.repeats)
    memory(arguments.documents)


if __name__ == "__main__":
    main()

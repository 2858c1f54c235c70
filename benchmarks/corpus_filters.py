"""Speed and memory of the corpus filters.

    python -m benchmarks.corpus_filters --data stdlib [--mbpp mbpp.jsonl]

Prints MB/s and documents/s of CPU time of one process, with one more filter on in each row, and how many nodes one core
supplies if a node prefills 60,000 tokens/s (0.20 MB/s at 3.37 bytes of Python per token). Then prints the memory per
document of the near-duplicate index, over documents of random names.
"""

from __future__ import annotations

import random
import resource
import time

from benchmarks import _common
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.dedup import NearDuplicates
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.readers import sources

TOKENS_PER_S, BYTES_PER_TOKEN = 60_000, 3.37
OFF = FilterSettings(licences="any", near_duplicates=0, decontaminate="none", keep_generated=True)


def measure(name: str, data: str, filters: FilterSettings | None, repeats: int) -> None:
    """Print the rate of the fastest of `repeats` passes."""
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
    """Print the resident memory of the index per document."""
    rng = random.Random(0)
    near = NearDuplicates(0.85)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(number):
        text = " ".join(f"x{rng.randrange(10**6)}" for _ in range(60))
        near.match_or_add(ngrams.code_tokens(text), f"{n:012x}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"near-duplicate index: {(after - before) * 1024 / number / 1000:.1f} kB per document ({number:,})")


def main() -> None:
    """Measure each set of filters and the index."""
    parser = _common.parser(__doc__)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--mbpp", help="mbpp.jsonl")
    parser.add_argument("--documents", type=int, default=20_000, help="documents in the near-duplicate index")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    benchmarks = "humaneval" + (f",mbpp={options.mbpp}" if options.mbpp else "")
    rows: list[tuple[str, FilterSettings | None]] = [
        ("read and ordered only", None),
        ("+ limits, exact duplicates", OFF),
        ("+ near duplicates", FilterSettings(licences="any", keep_generated=True, decontaminate="none")),
        (
            f"+ decontamination ({benchmarks.partition('=')[0]}), no near duplicates",
            FilterSettings(licences="any", keep_generated=True, near_duplicates=0, decontaminate=benchmarks),
        ),
        ("all", FilterSettings(decontaminate=benchmarks)),
    ]
    for name, filters in rows:
        measure(name, options.data, filters, options.repeats)
    memory(options.documents)


if __name__ == "__main__":
    main()

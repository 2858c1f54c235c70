"""Time and size of an index of documentation, and the time of its queries.

Builds the index of an installed package several times, then asks it for names, parts of names and questions. Prints the
table of docs/benchmarks/evalkit.md.

    python -m benchmarks.docs_search --package numpy --repeats 3
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import markdown_table, parser, provenance
from evalkit.tools.docs.build import build_index
from evalkit.tools.docs.index import DocsIndex

QUERIES = {
    "a name": ["zeros", "linalg.norm", "numpy.where", "ndarray.reshape", "np.einsum"],
    "a part of a name": ["zero", "norm", "cum", "sort", "rand"],
    "a question of a few words": [
        "solve a linear system",
        "random permutation of a sequence",
        "sort an array along an axis",
        "eigenvalues of a symmetric matrix",
        "indices of the largest values",
    ],
    "a whole problem": [
        "Write a function that takes a list of numbers and returns a list in which each element is the mean of the "
        "elements of a window around it. The window is cut at both ends of the list. Round each mean to two decimals, "
        "and return an empty list where the input is empty or the window has no elements at all."
    ],
}
LIMIT = 5


class _Quiet:
    """Callbacks that print nothing."""

    def note(self, text: str) -> None: ...

    def start(self, what: str, total: int) -> None: ...

    def step(self, steps: int = 1, tokens: int = 0) -> None: ...

    def stop(self) -> None: ...


class _Clock:
    """Seconds by the clock and of CPU, of this process and the processes that it waited for."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), _cpu_s()

    def read(self) -> tuple[float, float]:
        """Return both since the beginning."""
        return time.perf_counter() - self._wall_s, _cpu_s() - self._cpu_s


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def query_ms(index: DocsIndex, query: str, *, repeats: int) -> list[tuple[float, float]]:
    """Return the milliseconds by the clock and of CPU of each of `repeats` searches."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.thread_time()
        index.search(query, LIMIT)
        times.append((1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)))
    return times


def shown(pairs: Sequence[tuple[float, float]], unit: str) -> list[str]:
    """Return the median with the range, of both times."""
    columns = [sorted(column) for column in zip(*pairs, strict=True)]
    return [f"{statistics.median(times):.1f} {unit} ({times[0]:.1f} to {times[-1]:.1f})" for times in columns]


def main() -> None:
    """Measure, and print the table."""
    options = parser(__doc__)
    options.add_argument("--package", default="numpy", help="an installed package (default: numpy)")
    options.add_argument("--repeats", type=int, default=3, help="builds (default: 3)")
    options.add_argument("--searches", type=int, default=50, help="searches of each query (default: 50)")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, builds = Path(folder, "docs.db"), []
        for _ in range(args.repeats):
            clock = _Clock()
            built = build_index([args.package], path, _Quiet())
            builds.append(clock.read())
        clock = _Clock()
        with DocsIndex.open(path) as index:
            opening = [(1000 * wall_s, 1000 * cpu_s) for wall_s, cpu_s in [clock.read()]]
            searches = {
                kind: [pair for query in queries for pair in query_ms(index, query, repeats=args.searches)]
                for kind, queries in QUERIES.items()
            }
    [read] = built.packages
    rows = [["build", *shown(builds, "s")], ["open and check", *shown(opening, "ms")]]
    rows += [[f"search: {kind}", *shown(pairs, "ms")] for kind, pairs in searches.items()]
    print(f"{read.package.name} {read.package.version}: {len(read.names):,} names, {read.num_files} sources, ", end="")
    print(f"{read.num_imported} modules imported in the sandbox, {built.size_bytes / 1e6:.1f} MB. {provenance()}.\n")
    print(markdown_table(["", "by the clock", "CPU"], rows))


if __name__ == "__main__":
    main()

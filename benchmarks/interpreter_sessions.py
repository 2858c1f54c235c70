"""Time and memory of interpreter sessions (`evalkit.sandbox.interpreter`), with every layer of confinement on.

    python -m benchmarks.interpreter_sessions [--sessions 30] [--cells 20] [--repeats 3]

Sessions are open at the same time on one checker. Each runs a first cell, then `--cells` more in turn: a function is
defined, called and printed. Memory is the proportional share (PSS) of the guests while all are idle. Prints the medians
of the repeats as Markdown.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

from benchmarks._common import markdown_table, parser, provenance
from evalkit.sandbox.interpreter import Interpreter
from evalkit.sandbox.pool import Pool

_FIRST = "def f(x):\n    return [x] * 3\n"
_NEXT = "print(f(1))\nf('a')"


def guest_bytes() -> int:
    """Return the proportional memory of all guests: user nobody's processes that descend from this one's checkers."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with contextlib.suppress(OSError):
            if b"evalkit.sandbox.guest" in (path.parent / "cmdline").read_bytes():
                line = next(line for line in path.read_text().splitlines() if line.startswith("Pss:"))
                total += int(line.split()[1]) * 1024
    return total


def measure(num_sessions: int, num_cells: int) -> tuple[float, float, float]:
    """Return milliseconds of a first cell and of a later one, and the bytes of an idle session."""
    with Pool(workers=1) as pool, Interpreter(pool) as interpreter:
        interpreter.open().run("1")  # the checker and its zygote start
        before = guest_bytes()
        sessions = [interpreter.open() for _ in range(num_sessions)]
        started = time.perf_counter()
        for session in sessions:
            assert session.run(_FIRST).outcome == "ran"
        first_s = time.perf_counter() - started
        memory = guest_bytes() - before
        started = time.perf_counter()
        for _ in range(num_cells):
            for session in sessions:
                assert session.run(_NEXT).output == "[1, 1, 1]\n['a', 'a', 'a']"
        next_s = time.perf_counter() - started
    return 1000 * first_s / num_sessions, 1000 * next_s / (num_sessions * num_cells), memory / num_sessions


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--sessions", type=int, default=30)
    arguments.add_argument("--cells", type=int, default=20)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    rows = [measure(options.sessions, options.cells) for _ in range(options.repeats)]
    first_ms, next_ms, memory = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{provenance()}, {options.sessions} sessions, {options.repeats} repeats\n")
    header = ["first cell of a session", "later cell", "memory of an idle session"]
    print(markdown_table(header, [[f"{first_ms:.1f} ms", f"{next_ms:.2f} ms", f"{memory / 1e6:.1f} MB"]]))


if __name__ == "__main__":
    main()

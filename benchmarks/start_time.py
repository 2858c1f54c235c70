"""CPU time until transformers' model classes are imported, as usual and after `quicken_imports`.

    python -m benchmarks.start_time

Every command that loads a model pays it once. Both ways alternate, each in a new process.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks import _common

USUAL = "from transformers import AutoModelForCausalLM"
QUICK = f"from shards.runtime import imports; imports.quicken_imports(); {USUAL}"


def main() -> None:
    """Measure and print."""
    parser = _common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    pairs = [(_cpu_seconds(USUAL), _cpu_seconds(QUICK)) for _ in range(options.rounds + 1)][
        1:
    ]  # the first fills caches
    usual, quick = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(quick / usual for usual, quick in pairs)
    print(f"usual {usual:.2f} s, quick {quick:.2f} s of CPU time; ratio {ratio:.2f} (medians of {len(pairs)} pairs)")
    print(_common.provenance())


def _cpu_seconds(code: str) -> float:
    """Return the CPU time of a new Python that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=_common.ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()

"""Run a command and print the most memory that it and all its descendants held together, and their processor time.

Samples /proc several times a second and adds up the proportional set sizes (PSS: pages that processes share are counted
once) and the resident set sizes (RSS: shared pages are counted in each process, so this sum is an upper bound).
Processor time is what a busy machine leaves comparable: each process' at its last sample, added up.

    python -m benchmarks.peak_memory -- make demo
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from benchmarks import _common

INTERVAL_S = 0.5


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("command", nargs="+")
    command = parser.parse_args().command

    began = time.monotonic()
    process = subprocess.Popen(command)
    peaks = {"pss": (0, ""), "rss": (0, "")}
    done = threading.Event()
    processor_s: dict[tuple[int, float], float] = {}
    sampler = threading.Thread(target=_sample, args=(process.pid, peaks, processor_s, done))
    sampler.start()
    code = process.wait()
    done.set()
    sampler.join()
    (pss, during), (rss, _) = peaks["pss"], peaks["rss"]
    print(
        f"peak memory: {pss / 2**30:.2f} GiB of proportional set sizes, {rss / 2**30:.2f} GiB of resident set sizes, "
        f"during {during!r}; {time.monotonic() - began:,.0f} s, {sum(processor_s.values()):,.0f} s of processor time",
        file=sys.stderr,
    )
    sys.exit(code)


def _sample(
    pid: int,
    peaks: dict[str, tuple[int, str]],
    processor_s: dict[tuple[int, float], float],
    done: threading.Event,
) -> None:
    import psutil

    root = psutil.Process(pid)
    while not done.wait(INTERVAL_S):
        totals, largest, name = {"pss": 0, "rss": 0}, 0, ""
        try:
            processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            continue
        for process in processes:
            try:
                memory, times = process.memory_full_info(), process.cpu_times()
                processor_s[process.pid, process.create_time()] = times.user + times.system
                if memory.rss > largest:
                    largest, name = memory.rss, " ".join(process.cmdline()[:3])
            except psutil.Error:  # it has ended meanwhile
                continue
            totals["pss"] += memory.pss
            totals["rss"] += memory.rss
        for kind, total in totals.items():
            peaks[kind] = max(peaks[kind], (total, name))


if __name__ == "__main__":
    main()

"""Run a command and print the most memory that it and all its descendants held together.

Samples /proc several times a second and adds up the proportional set sizes (PSS: pages that processes share are counted
once) and the resident set sizes (RSS: shared pages are counted in each process, so this sum is an upper bound).

    python -m benchmarks.peak_memory -- make demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time

INTERVAL_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+")
    command = parser.parse_args().command

    began = time.monotonic()
    process = subprocess.Popen(command)
    peaks = {"pss": (0, ""), "rss": (0, "")}
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(process.pid, peaks, done))
    sampler.start()
    code = process.wait()
    done.set()
    sampler.join()
    (pss, during), (rss, _) = peaks["pss"], peaks["rss"]
    print(
        f"peak memory: {pss / 2**30:.2f} GiB of proportional set sizes, {rss / 2**30:.2f} GiB of resident set sizes, "
        f"during {during!r}; {time.monotonic() - began:,.0f} s",
        file=sys.stderr,
    )
    sys.exit(code)


def _sample(pid: int, peaks: dict[str, tuple[int, str]], done: threading.Event) -> None:
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
                memory = process.memory_full_info()
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

"""Peak memory and CPU time of a command and all its descendants.

Samples /proc twice a second and sums the proportional set sizes (PSS, shared pages count once) and the resident set
sizes (RSS, shared pages count in each process, so the sum is an upper bound). CPU time is the sum over processes of
each one's last sample; it is comparable between runs on a busy machine.

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
    """Run the command, print both figures and exit with its code."""
    parser = _common.parser(__doc__)
    parser.add_argument("command", nargs="+")
    command = parser.parse_args().command

    began = time.monotonic()
    process = subprocess.Popen(command)
    peaks = {"pss": (0, ""), "rss": (0, "")}
    done = threading.Event()
    cpu_s: dict[tuple[int, float], float] = {}
    sampler = threading.Thread(target=_sample, args=(process.pid, peaks, cpu_s, done))
    sampler.start()
    code = process.wait()
    done.set()
    sampler.join()
    (pss, during), (rss, _) = peaks["pss"], peaks["rss"]
    print(
        f"peak memory: {pss / 2**30:.2f} GiB of proportional set sizes, {rss / 2**30:.2f} GiB of resident set sizes, "
        f"during {during!r}; {time.monotonic() - began:,.0f} s, {sum(cpu_s.values()):,.0f} s of CPU time",
        file=sys.stderr,
    )
    sys.exit(code)


def _sample(
    pid: int,
    peaks: dict[str, tuple[int, str]],
    cpu_s: dict[tuple[int, float], float],
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
                cpu_s[process.pid, process.create_time()] = times.user + times.system
                if memory.rss > largest:
                    largest, name = memory.rss, " ".join(process.cmdline()[:3])
            except psutil.Error:  # the process has ended
                continue
            totals["pss"] += memory.pss
            totals["rss"] += memory.rss
        for kind, total in totals.items():
            peaks[kind] = max(peaks[kind], (total, name))


if __name__ == "__main__":
    main()

"""Seconds of a decoding step while threads spin or sleep as they wait for each other, alone and beside other work.

    python -m benchmarks.waiting_threads
    python -m benchmarks.waiting_threads --model FOLDER --batch 16

Threads of OpenMP wait for each other after every operation. By default they spin for a while, which is quick on an idle
machine; `OMP_WAIT_POLICY=passive` lets them sleep. Each figure is of a new process; the ways take turns, and figures
are medians. The other work is one endless loop of Python. Prints a Markdown table.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import _common

POLICIES = ("", "passive")
"""OMP_WAIT_POLICY: the default, and sleeping."""
CHILD = """
import statistics, sys
import torch
from transformers import AutoModelForCausalLM
from benchmarks.decoding_step import step_seconds
from shards.runtime import machine
machine.use_threads(torch)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2])).eval()
with torch.inference_mode():
    print(statistics.median(step_seconds(model, torch, batch=int(sys.argv[3]), length=200, steps=9)))
"""


def main() -> None:
    """Measure and print."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="short name or transformers folder")
    parser.add_argument("--batch", type=int, default=48, help="rows that a step reads")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from evalkit.generation.engine import choose_dtype
    from teacher_dump.model.teachers import resolve

    dtype = choose_dtype("auto", deterministic=False).dtype
    arguments = (str(resolve(options.model).folder), dtype, str(options.batch))
    print(f"{options.model}, {dtype}, {options.batch} rows; {_common.provenance(with_torch=True)}\n")
    rows = []
    for is_shared in (False, True):
        seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        for _ in range(options.rounds):
            for policy in POLICIES:
                with _other_work(is_shared):
                    seconds[policy].append(_step_seconds(arguments, policy))
        spinning, sleeping = (statistics.median(seconds[policy]) for policy in POLICIES)
        ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
        where = "beside one busy process" if is_shared else "alone"
        rows.append((where, f"{spinning:.3f}", f"{sleeping:.3f}", f"{ratio:.2f}"))
    print(_common.markdown_table(("", "spinning, s", "sleeping, s", "ratio"), rows))


@contextmanager
def _other_work(is_wanted: bool) -> Iterator[None]:
    """Run an endless loop beside the measurement."""
    if not is_wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _step_seconds(arguments: tuple[str, ...], policy: str) -> float:
    """Return the median of a decoding step in a new process."""
    command = [sys.executable, "-c", CHILD, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    done = subprocess.run(
        command, cwd=_common.ROOT, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()

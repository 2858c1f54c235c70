"""Time and memory of the sparse records beside the logits that they come from, by vocabulary size.

Projects random hidden states in the blocks that the engines use and makes records of each block. Each vocabulary size
has a process of its own. Time is the median per position of the projection alone and of projection and records, run in
turn. Memory is the peak of the process (of the allocator on a GPU) above its level with hidden states and weights
loaded. The limit is 256 MiB at any vocabulary up to 262,144. `--naive` adds a float32 log-softmax of all positions at
once.

    python -m benchmarks.reduction --json reduction.json
    python -m benchmarks.reduction --device cuda --positions 8192 --hidden 8192
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _common

VOCABULARIES = (32_016, 49_152, 151_936, 262_144)


def main() -> None:
    """Measure every vocabulary size in a process of its own."""
    parser = _common.parser(__doc__)
    parser.add_argument("--vocab", type=int, nargs="+", default=list(VOCABULARIES))
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    results = []
    for vocab in options.vocab:
        command = [sys.executable, "-m", "benchmarks.reduction", *sys.argv[1:], "--vocab", str(vocab), "--one"]
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(results[-1], flush=True)
    if options.json:
        _common.write_json(options.json, results)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return peaks (MiB) and times (microseconds per position) of one vocabulary size."""
    import torch

    from teacher_dump.engines.records import RecordSpec
    from teacher_dump.engines.sparsify import sparsify

    vocab, device = options.vocab[0], torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    spec, step = RecordSpec(), RecordSpec.block_positions(vocab)
    # The scale gives logits with a standard deviation of about 3 and heads of one to five ids.
    weight_VD = torch.randn(vocab, options.hidden, generator=generator).to(device)
    hidden_PD = (torch.randn(options.positions, options.hidden, generator=generator) * 4 / options.hidden**0.5).to(
        device
    )
    next_P = torch.randint(0, vocab, (options.positions,), generator=generator).to(device)
    u_P = torch.rand(options.positions, dtype=torch.float64, generator=generator).to(device)
    white_V = torch.zeros(vocab, device=device)

    def project() -> None:
        for i in range(0, options.positions, step):
            hidden_PD[i : i + step] @ weight_VD.T

    def capture() -> None:
        for i in range(0, options.positions, step):
            part = slice(i, i + step)
            sparsify(hidden_PD[part] @ weight_VD.T, next_P[part], u_P[part], spec=spec, whitespace_V=white_V).pack()

    def naive() -> None:
        (hidden_PD @ weight_VD.T).log_softmax(1)

    ways: dict[str, Callable[[], None]] = {"project": project, "capture": capture}
    if options.naive:
        ways["naive"] = naive
    result: dict[str, Any] = {"vocab": vocab, "positions": options.positions, "piece": step}
    (hidden_PD[:2] @ weight_VD.T).softmax(1)  # warm-up: libraries load and allocate
    before = peak(device)
    for way, run in ways.items():
        run()
        result[f"{way}_peak_MiB"] = round(
            (peak(device) - before) / 2**20, 1
        )  # the peak never falls, so the smallest way runs first
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - begin)
    for way in ways:
        result[f"{way}_us"] = round(statistics.median(seconds[way]) / options.positions * 1e6, 1)
    return result


def peak(device: Any) -> int:
    """Return the peak memory so far, bytes."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

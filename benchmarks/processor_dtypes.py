"""Speed of matrix products in float32 and bfloat16 on this processor, as it is and capped by environment variables.

Each setting runs in a process of its own, because oneDNN and ATen read their variables once. Prints as Markdown the
median over rounds, in GFLOP/s of one core and CPU time, and the type that `--dtype auto` selects. CPU time depends
little on other programs. The shape is an MLP layer of SmolLM2-135M over 512 tokens.

    python -m benchmarks.processor_dtypes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks import _common
from shards.runtime import machine

SHAPE = (512, 576, 1536)
CAPS: tuple[dict[str, str], ...] = (
    {},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
)


def main() -> None:
    """Measure every setting and print one table."""
    parser = _common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.rounds)))
        return
    print(f"{_common.provenance(with_torch=True)}, {options.rounds} rounds\n")
    print(
        "| variables | float32, GFLOP/s | bfloat16, GFLOP/s | bfloat16 takes | `--dtype auto` |\n|---|---|---|---|---|"
    )
    for caps in CAPS:
        arguments = [sys.executable, "-m", "benchmarks.processor_dtypes", "--one", "--rounds", str(options.rounds)]
        done = subprocess.run(arguments, env={**os.environ, **caps}, capture_output=True, text=True, check=True)
        speeds = json.loads(done.stdout)
        names = " ".join(f"`{name}={value}`" for name, value in caps.items()) or "none"
        ratio = speeds["float32"] / speeds["bfloat16"]
        cells = f"{speeds['float32']:.1f} | {speeds['bfloat16']:.1f} | {ratio:.2g} times as long | {speeds['auto']}"
        print(f"| {names} | {cells} |", flush=True)


def measure(rounds: int) -> dict[str, object]:
    """Return the GFLOP/s of one core in both types, and the type that `auto` selects."""
    import torch

    machine.use_threads(torch, 1)
    rows, inner, columns = SHAPE
    speeds: dict[str, object] = {"auto": machine.choose_dtype("auto", gpu=None).dtype}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        torch.mm(a, b)
        seconds = []
        for _ in range(rounds):
            begin = time.process_time()
            torch.mm(a, b)
            seconds.append(time.process_time() - begin)
        speeds[str(dtype).removeprefix("torch.")] = 2 * rows * inner * columns / statistics.median(seconds) / 1e9
    return speeds


if __name__ == "__main__":
    main()

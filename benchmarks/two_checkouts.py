"""Time and CPU time of whole commands from two checkouts, run in turn.

Each round runs the same command from both checkouts, in alternating order, with this interpreter. Prints the ratios of
the second checkout to the first. CPU time includes all processes of a command and depends little on other programs.

dump   `teacher-dump` with the transformers engine: SmolLM2-135M over the standard library
train  `student-train` with ten of the teacher's layers, six steps on a cache

    git worktree add /tmp/before COMMIT
    python -m benchmarks.two_checkouts dump /tmp/before . --tokens 24576
    python -m benchmarks.two_checkouts train /tmp/before . --shards shards/
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _common


def main() -> None:
    """Run both checkouts in turn and print one table."""
    parser = _common.parser(__doc__)
    parser.add_argument("command", choices=("dump", "train"))
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24_576, help="tokens to dump")
    parser.add_argument("--shards", type=Path, help="cache to train on")
    options = parser.parse_args()
    if options.command == "train" and options.shards is None:
        parser.error("train needs --shards")
    if options.command == "dump":
        arguments = ["-m", "teacher_dump", "--engine", "transformers", "--model", "smollm2-135m", "--data", "stdlib"]
        arguments += ["--max-documents", "120", "--max-tokens", str(options.tokens), "--window-tokens", "256"]
        arguments += ["--task-tokens", "4096"]
    else:
        arguments = ["-m", "student_train", "--shards", str(options.shards.resolve()), "--student", "teacher"]
        arguments += ["--student-layers", "10", "--max-steps", "6", "--batch-tokens", "1024", "--micro-tokens", "1024"]
        arguments += ["--held-out", "0.2", "--no-tensorboard", "--no-progress"]
    pairs = []
    for turn in range(options.rounds):
        order = (options.before, options.after) if turn % 2 == 0 else (options.after, options.before)
        seconds = {checkout: run(checkout.resolve(), arguments) for checkout in order}
        pairs.append((seconds[options.before], seconds[options.after]))
    print(f"{_common.provenance(with_torch=True)}, {options.command}, {options.rounds} rounds\n")
    rows = []
    for name, index in (("wall", 0), ("CPU", 1)):
        ratios = [after[index] / before[index] for before, after in pairs]
        first = statistics.median(before[index] for before, _ in pairs)
        rows.append(
            (name, f"{first:.1f}", f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}")
        )
    print(_common.markdown_table(("", "before, s", "after / before", "smallest to largest"), rows))


def run(checkout: Path, arguments: list[str]) -> tuple[float, float]:
    """Return wall seconds and CPU seconds of a command from a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments, "--out", str(Path(folder, "out"))]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: exit {done.returncode}\n{done.stderr[-2000:]}")
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

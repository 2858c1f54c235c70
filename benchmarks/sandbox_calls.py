"""Programs and calls per second that `execute_calls` evaluates, with every layer of confinement on.

    python -m benchmarks.sandbox_calls [--copies 3] [--repeats 3] [--calls 35]

Programs are HumanEval's 164 references, `--copies` of each, told apart by an unused name. Calls are the calls of the
entry point with literal arguments in the task's test, repeated up to `--calls` for each program. One program in fifty
hangs in one call (limit 0.1 s of CPU). The three states of `execute_calls` take turns, so that a busy moment of the
machine hits all. Prints the medians of the repeats as Markdown.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import platform
import resource
import statistics
import time
from datetime import date

from evalkit.sandbox.execute import STATES, CallLimits, ProgramCalls, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.tasks import registry
from evalkit.tasks.base import Problem
from shards.runtime.machine import describe

_HANGS_EVERY = 50


def literal_calls(problem: Problem) -> list[str]:
    """Return the calls with literal arguments in a problem's test, as calls of the entry point."""
    (name,) = problem.entry_points
    calls = []
    for node in ast.walk(ast.parse(problem.test)):
        match node:
            case ast.Call(ast.Name("candidate"), args, []):
                source = ", ".join(ast.unparse(argument) for argument in args)
                try:
                    ast.literal_eval(f"[{source}]")
                except ValueError:
                    continue
                calls.append(f"{name}({source})")
    return calls


def programs(*, copies: int, num_calls: int) -> list[ProgramCalls]:
    """Return the programs and their calls."""
    rows: list[ProgramCalls] = []
    for copy, problem in itertools.product(range(copies), registry.load("humaneval").problems):
        calls = literal_calls(problem)
        calls = [*itertools.islice(itertools.cycle(calls), num_calls)]
        if calls and len(rows) % _HANGS_EVERY == 0:
            calls[len(calls) // 2] = "[None for _ in iter(int, 1)]"
        if calls:
            rows.append(ProgramCalls(program=f"{problem.reference}\n_copy = {copy}\n", calls=tuple(calls)))
    return rows


def measure(rows: list[ProgramCalls], state: str) -> tuple[float, int]:
    """Return seconds by the clock, start of the pool included, and how many calls gave a value."""
    started = time.perf_counter()
    with Pool() as pool:
        results = list(execute_calls(rows, pool=pool, state=state, limits=CallLimits(call_cpu_s=0.1)))
    seconds = time.perf_counter() - started
    return seconds, sum(call.outcome == "value" for result in results for call in result.calls)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calls", type=int, default=35)
    options = parser.parse_args()
    rows = programs(copies=options.copies, num_calls=options.calls)
    num_calls = sum(len(row.calls) for row in rows)
    seconds: dict[str, list[float]] = {state: [] for state in STATES}
    values: dict[str, int] = {}
    cpu_s: dict[str, float] = {}
    for _ in range(options.repeats):
        for state in STATES:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken, values[state] = measure(rows, state)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[state].append(taken)
            cpu_s[state] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{date.today()}, Python {platform.python_version()}, {describe()}, {options.repeats} repeats, ", end="")
    print(f"{len(rows)} programs, {num_calls} calls\n")
    print("| state | programs per second | calls per second | CPU ms per program | calls with a value |")
    print("| --- | --- | --- | --- | --- |")
    for state in STATES:
        median = statistics.median(seconds[state])
        print(f"| {state} | {len(rows) / median:.0f} | {num_calls / median:,.0f} | ", end="")
        print(f"{1000 * cpu_s[state] / len(rows):.1f} | {values[state]} |")


if __name__ == "__main__":
    main()

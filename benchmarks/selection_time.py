"""Time of `evalkit rerank` on a load in the shape of CodeT's published samples.

    python -m benchmarks.selection_time [--problems 164] [--loops 0.03] [--workers N] [--work FOLDER]

The load has, for each problem of HumanEval, 100 samples with 76 distinct programs, and 100 texts with 51 distinct tests
of 35 distinct calls: over all 164 problems about 12,400 programs, 8,300 tests and 5,700 calls. Programs are the
references with changed operators and constants, removed statements, wrong names and syntax errors; `--loops` of them
loop on every call, one in 1,000 sleeps, and one in 1,000 prints without end. A third of the tests are wrong, and one in
25 is no comparison that the host makes. Everything follows from a fixed seed.

Measures the command from start to exit: evidence, rankings of all methods, and verdicts, with empty caches, then again
with the evidence and the verdicts of the first run. Prints Markdown with seconds by the clock, CPU seconds of all
processes and, for fewer problems than 164, both multiplied to 12,408 distinct programs.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.sandbox_calls import literal_calls
from evalkit.rerank.inputs.mutation import mutated_calls
from evalkit.sandbox.execute import CallLimits, ProgramCalls, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.tasks import registry
from evalkit.tasks.base import Problem

SAMPLES, PROGRAMS, TESTS, CALLS = 100, 76, 51, 35
"""Of one problem: samples, distinct programs, distinct tests, distinct calls."""

PUBLISHED_PROGRAMS = 12_408
"""Distinct programs among the published samples."""

_KINDS = {"right": 0.25, "changed": 0.5, "shortened": 0.1, "unknown name": 0.05, "syntax": 0.04, "none": 0.06}
"""Shares of the kinds of programs that end."""

_ENDLESS = {
    "loops": "    while True:\n        pass\n",
    "sleeps": "    import time\n    time.sleep(1000)\n",
    "floods": "    while True:\n        print('x' * 1000)\n",
}


_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class _Change(ast.NodeTransformer):
    """Changes about one in `odds` operators and constants."""

    def __init__(self, generator: random.Random, odds: int) -> None:
        self._generator, self._odds = generator, odds

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if type(node) in _SWAPS and not self._generator.randrange(self._odds):
            swapped: ast.AST = _SWAPS[type(node)]()
            return swapped
        if isinstance(node, ast.Constant) and type(node.value) is int and not self._generator.randrange(self._odds):
            return ast.Constant(node.value + self._generator.choice((-1, 1)))
        return node


def _body(problem: Problem, kind: str, number: int, generator: random.Random) -> str:
    """Return the body of one program; `number` tells it apart from others."""
    mark = f"    _number = {number}\n"
    body = problem.reference.removeprefix(problem.prompt)
    if kind in _ENDLESS:
        return mark + _ENDLESS[kind]
    if kind == "syntax":
        return f"{mark}    return (\n"
    if kind == "none":
        return f"{mark}    print(_number)\n"
    if kind == "unknown name":
        return f"{mark}    return undefined_name(_number)\n"
    if kind == "right":
        return mark + body
    tree = ast.parse(f"def f():\n{body}")
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    if kind == "shortened" and len(function.body) > 1:
        del function.body[generator.randrange(len(function.body) - 1)]
    changed = ast.fix_missing_locations(_Change(generator, odds=4).visit(tree))
    return mark + ast.unparse(changed).partition("\n")[2] + "\n"


def samples_of(problem: Problem, generator: random.Random, *, loops: float) -> list[str]:
    """Return the completions of one problem."""
    shares = {"loops": loops, "sleeps": 0.001, "floods": 0.001}
    rest = 1 - sum(shares.values())
    shares |= {kind: rest * share for kind, share in _KINDS.items()}
    kinds = generator.choices([*shares], [*shares.values()], k=PROGRAMS)
    bodies = [_body(problem, kind, number, generator) for number, kind in enumerate(kinds)]
    return bodies + generator.choices(bodies, k=SAMPLES - PROGRAMS)


def tests_of(problem: Problem, values: dict[str, str], generator: random.Random) -> list[str]:
    """Return the texts of the tests of one problem.

    Args:
        problem: The problem.
        values: The reference's value of each call, as source.
        generator: Source of choices.
    """
    calls = [*values]
    tests = [f"{call} == {value}" for call, value in values.items()]
    tests = tests or [f"{problem.entry_points[0]}('a') == 'a'"]  # two problems have tests with random arguments only
    while len(set(tests)) < TESTS and len(calls) > 1:
        call, other = generator.sample(calls, 2)
        is_opaque = generator.random() < 0.12
        tests.append(f"all(x == {call} for x in [{call}])" if is_opaque else f"{call} == {values[other]}")
        if len(tests) > 10 * TESTS:
            break
    tests = [*dict.fromkeys(tests)][:TESTS]
    weights = [1 / (1 + place) for place in range(len(tests))]
    # The first texts hold every test, five at a time; the others repeat those that are written most often.
    texts = [tests[start : start + 5] for start in range(0, len(tests), 5)]
    texts += [generator.choices(tests, weights, k=5) for _ in range(SAMPLES - len(texts))]
    return ["\nassert ".join(text) for text in texts]


def _values(problems: list[Problem], pool: Pool, seed: str) -> Iterator[tuple[Problem, dict[str, str]]]:
    """Yield each problem with the values of its reference on the calls of its tests and on changed calls."""
    jobs = []
    for problem in problems:
        calls = [*dict.fromkeys(literal_calls(problem))][:CALLS]
        calls += mutated_calls(calls, number=CALLS - len(calls), seed=seed)
        jobs.append(ProgramCalls(program=problem.reference, calls=tuple(calls)))
    results = execute_calls(jobs, pool=pool, limits=CallLimits(call_cpu_s=0.05, program_cpu_s=5.0))
    for problem, job, result in zip(problems, jobs, results, strict=True):
        values = {}
        for call, output in zip(job.calls, result.calls, strict=True):
            if output.has_form and len(output.text) < 100:
                values[call] = repr(output.value())
        yield problem, values


def write_load(folder: Path, problems: list[Problem], *, loops: float) -> tuple[Path, Path]:
    """Write samples and tests; return their paths."""
    samples: list[dict[str, str]] = []
    tests: list[dict[str, str]] = []
    with Pool() as pool:
        for problem, values in _values(problems, pool, "selection_time"):
            generator = random.Random(problem.task_id)
            task_id = problem.task_id
            samples += [{"task_id": task_id, "completion": t} for t in samples_of(problem, generator, loops=loops)]
            tests += [{"task_id": task_id, "completion": text} for text in tests_of(problem, values, generator)]
    paths = folder / "samples.jsonl", folder / "tests.jsonl"
    for path, rows in zip(paths, (samples, tests), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def measure(folder: Path, samples: Path, tests: Path, workers: int | None) -> dict[str, Any]:
    """Run the command; return its result, with `wall_s` and `cpu_s`."""
    command = [sys.executable, "-m", "evalkit", "rerank", str(samples), "--tests", str(tests), "--json", "r.json"]
    command += ["--html", "r.html", *(["--workers", str(workers)] if workers else [])]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(_common.ROOT)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return result | {"wall_s": wall_s, "cpu_s": cpu_s}


def main() -> None:
    """Measure and print."""
    parser = _common.parser(__doc__)
    parser.add_argument("--problems", type=int, default=164)
    parser.add_argument("--loops", type=float, default=0.03)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--work", type=Path, help="folder of the load and the outputs; default: a temporary one")
    options = parser.parse_args()
    problems = list(registry.load("humaneval").problems)
    chosen = [problems[place * len(problems) // options.problems] for place in range(options.problems)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        samples, tests = write_load(folder, chosen, loops=options.loops)
        runs = [measure(folder, samples, tests, options.workers) for _ in range(2)]
    evidence = runs[0]["evidence"]
    scale = PUBLISHED_PROGRAMS / evidence["distinct_programs"]
    print(f"{_common.provenance()}: {evidence['tasks']} problems, {evidence['samples']:,} samples, ", end="")
    print(f"{evidence['distinct_programs']:,} distinct programs, {evidence['tests']:,} tests, ", end="")
    print(f"{evidence['calls']:,} calls, {evidence['outputs']:,} outputs; {options.loops:.1%} of programs loop\n")
    rows = []
    for name, run in zip(("nothing known", "evidence and verdicts known"), runs, strict=True):
        wall_s, cpu_s = run["wall_s"], run["cpu_s"]
        per_program_ms = 1000 * cpu_s / evidence["distinct_programs"]
        numbers = (wall_s, run["evidence"]["time"], cpu_s, per_program_ms, scale * cpu_s / 120)
        rows.append([name, *(f"{number:.1f}" for number in numbers)])
    header = ["run", "seconds", "of these evidence", "CPU seconds", "CPU ms per program"]
    print(_common.markdown_table([*header, f"minutes for {PUBLISHED_PROGRAMS:,} programs on 2 idle cores"], rows))


if __name__ == "__main__":
    main()

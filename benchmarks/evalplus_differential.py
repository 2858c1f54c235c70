"""Verdicts of evalkit beside those of EvalPlus' own checker, on references whose answers have other types.

    python -m benchmarks.evalplus_differential --task humaneval+|mbpp+ --peer PYTHON --data-dir FOLDER [--every 1]

Programs: each reference with each transformation (`answer_transformations.py`) that changes one of its answers to the
base inputs. PYTHON is an interpreter with `evalplus==0.3.1`; FOLDER holds the data files of EvalPlus. Compares base and
plus verdicts. EvalPlus checks the programs that differ a second time. Prints the number of programs that differ, by
transformation, and each of these programs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.answer_transformations import TRANSFORMATIONS, applies, transform
from evalkit.sandbox.evalplus import task as plus_task
from evalkit.sandbox.evalplus.inputs import arguments
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks import base, registry
from evalkit.tasks.download import locate
from evalkit.tasks.evalplus import HUMANEVAL_PLUS, MBPP_PLUS

Pair = tuple[base.Problem, str, str]
"""A problem, the name of a transformation, and the program."""


def answers(problem: base.Problem) -> list[Any]:
    """Return the answers of a reference to the base inputs. The data is pinned, so it runs in this process."""
    assert problem.inputs is not None
    namespace: dict[str, Any] = {}
    exec(problem.reference, namespace)
    function = namespace[problem.entry_points[0]]
    inputs = arguments(plus_task.rows(problem.inputs["path"])[problem.task_id], "base")
    with contextlib.redirect_stdout(io.StringIO()):
        return [function(*copy.deepcopy(args)) for args in inputs]


def pairs(problems: list[base.Problem]) -> Iterator[Pair]:
    """Yield every program of the suite."""
    for problem in problems:
        plain = answers(problem)
        for transformation in TRANSFORMATIONS:
            if applies(transformation, plain):
                program = transform(problem.reference, problem.entry_points[0], transformation)
                yield problem, transformation.name, program


def by_evalplus(chosen: list[Pair], *, task: str, peer: str, data_dir: Path) -> list[tuple[bool, bool]]:
    """Return EvalPlus' verdicts as (base passes, base and plus pass)."""
    environment = os.environ | {
        "HUMANEVAL_OVERRIDE_PATH": str(locate(HUMANEVAL_PLUS, data_dir)),
        "MBPP_OVERRIDE_PATH": str(locate(MBPP_PLUS, data_dir)),
    }
    script = Path(__file__).with_name("evalplus_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        lines = [{"task_id": problem.task_id, "solution": program} for problem, _, program in chosen]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        command = [peer, str(script), task.rstrip("+"), str(source), str(target)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        results = [json.loads(line) for line in target.read_text().splitlines()]
    return [(line["base"] == "pass", line["base"] == line["plus"] == "pass") for line in results]


def by_evalkit(chosen: list[Pair]) -> list[Verdict]:
    """Return evalkit's verdict for each program."""
    with Pool(workers=2) as pool:
        verdicts = dict(pool.check_all([problem.job(program) for problem, _, program in chosen]))
    return [verdicts[index] for index in range(len(chosen))]


def main() -> None:
    """Check every program on both sides and print what differs."""
    parser = _common.parser(__doc__)
    parser.add_argument("--task", choices=("humaneval+", "mbpp+"), required=True)
    parser.add_argument("--peer", required=True, help="interpreter with evalplus==0.3.1")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="check every n-th program only")
    parser.add_argument("--tasks", default="", help="task ids, comma-separated; all if empty")
    parser.add_argument("--without", default="", help="task ids to leave out, comma-separated")
    parser.add_argument("--record", type=Path, help="file for the verdicts of EvalPlus, used by a test")
    options = parser.parse_args()
    included, excluded = set(filter(None, options.tasks.split(","))), set(options.without.split(","))
    problems = [
        problem
        for problem in registry.load(options.task, data_dir=options.data_dir).problems
        if (not included or problem.task_id in included) and problem.task_id not in excluded
    ]
    chosen = list(pairs(problems))[:: options.every]
    ours = by_evalkit(chosen)
    theirs = by_evalplus(chosen, task=options.task, peer=options.peer, data_dir=options.data_dir)
    # EvalPlus limits wall time: on a busy machine it may fail a program that passes a second time.
    differing_indices = [i for i, v in enumerate(ours) if (v.base_passed, v.passed) != theirs[i]]
    second = by_evalplus(
        [chosen[i] for i in differing_indices], task=options.task, peer=options.peer, data_dir=options.data_dir
    )
    for i, result in zip(differing_indices, second, strict=True):
        theirs[i] = result
    if options.record:
        rows = [[problem.task_id, name, *passed] for (problem, name, _), passed in zip(chosen, theirs, strict=True)]
        options.record.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    differing: Counter[str] = Counter()
    for (problem, name, _), verdict, (base_passed, both) in zip(chosen, ours, theirs, strict=True):
        if (verdict.base_passed, verdict.passed) != (base_passed, both):
            differing[name] += 1
            print(
                f"{problem.task_id}  {name}: EvalPlus base {base_passed}, both {both};",
                f"evalkit base {verdict.base_passed}, {verdict.outcome} {verdict.detail[:160]!r}",
            )
    print(f"{sum(differing.values())} of {len(chosen)} differ: {dict(differing)}")


if __name__ == "__main__":
    main()

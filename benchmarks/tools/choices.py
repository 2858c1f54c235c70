"""Execute samples on the visible tests, and find what `majority` chooses among the first 2, 3, ... of a problem.

    python -m benchmarks.tools.choices --samples samples.samples.jsonl --task humaneval --out choices.json

The visible tests are those of refinement. `majority` compares outputs on the calls that the prompt shows, and on calls
that are changed from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.selection.restrict import with_samples
from evalkit.console import ScoreProgress
from evalkit.outputs.files import write_json, write_text
from evalkit.rerank.rankers.counting import majority
from evalkit.rerank.run import RerankRequest, rerank
from evalkit.samples.base import Sample
from evalkit.sandbox.pool import Pool
from evalkit.scoring.ranked_problems import RankedProblem
from evalkit.tasks.base import Problem
from evalkit.tools.refine.visible import VisibleChecker, visible_tests


def main() -> None:
    """Write the choices of each problem."""
    parser = _common.parser(__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="sample file of evalkit score")
    parser.add_argument("--task", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    samples = [Sample(**json.loads(line)) for line in options.samples.read_text(encoding="utf-8").splitlines()]
    samples.sort(key=lambda sample: (sample.task_id, sample.index))
    by_index = options.out.with_name("by-index.samples.jsonl")
    write_text(by_index, "".join(sample.to_line() for sample in samples))
    request = RerankRequest(
        samples=(by_index,),
        tests=None,
        task=options.task,
        inputs=("examples", "mutation"),
        methods=("majority",),
        visible_tests="shown",
        result=options.out,
        evidence=options.out.with_name("evidence.arrow"),
        data_dir=options.data_dir,
    )
    with ScoreProgress() as progress:
        outcome = rerank(request, progress)
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task_id, []).append(sample)
    with Pool() as pool, VisibleChecker(pool) as checker:
        choices = {
            item.problem.task_id: _choices(item, by_task[item.problem.task_id], checker)
            for item in outcome.problems
            if not item.num_failed
        }
    write_json(options.out, choices)


def _choices(item: RankedProblem, samples: list[Sample], checker: VisibleChecker) -> dict[str, Any]:
    """Return what is known of a problem's samples, by index."""
    tests = visible_tests(item.problem, _shown(item.problem, samples[0]))
    futures = [checker.submit(sample.program(item.problem), tests) for sample in samples]
    chosen = {
        size: majority(with_samples(item.evidence, range(size))).order(size)[0] for size in range(2, len(samples) + 1)
    }
    return {
        "passed": list(item.passed),
        "tokens": [sample.tokens for sample in samples],
        "visible_tests": len(tests),
        "visible_passed": [future.result().passed for future in futures],
        "majority": chosen,
    }


def _shown(problem: Problem, sample: Sample) -> str:
    """Return the text that the model was shown: these protocols show the whole prompt."""
    return problem.prompt + sample.prompt


if __name__ == "__main__":
    main()

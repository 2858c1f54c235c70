"""Check programs with EvalPlus, in an interpreter that has `evalplus==0.3.1` and not this project.

    HUMANEVAL_OVERRIDE_PATH=... MBPP_OVERRIDE_PATH=... PYTHON benchmarks/evalplus_peer.py humaneval|mbpp IN OUT

IN holds JSON lines {"task_id", "solution"}; OUT gets one line {"base", "plus"} for each, in the same order: `pass`,
`fail` or `timeout`. Two programs run at a time. EvalPlus caches the answers of its references in its own directory.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

WORKERS = 2
_TASKS: dict[str, Any] = {}
_EXPECTED: dict[str, Any] = {}


def load(dataset: str) -> None:
    """Load the tasks and the answers of their references, before the worker processes are forked."""
    from evalplus import data, evaluate

    if dataset == "humaneval":
        _TASKS.update(data.get_human_eval_plus())
        _EXPECTED.update(evaluate.get_groundtruth(_TASKS, data.get_human_eval_plus_hash(), []))
    else:
        _TASKS.update(data.get_mbpp_plus())
        named = evaluate.MBPP_OUTPUT_NOT_NONE_TASKS
        _EXPECTED.update(evaluate.get_groundtruth(_TASKS, data.get_mbpp_plus_hash(), named))


def check(dataset: str, task_id: str, solution: str) -> dict[str, str]:
    """Return both results of EvalPlus for one program."""
    from evalplus.evaluate import check_correctness

    result = check_correctness(dataset, 0, _TASKS[task_id], solution, _EXPECTED[task_id], fast_check=True)
    return {"base": result["base"][0], "plus": result["plus"][0]}


def main() -> None:
    """Check all programs of a file."""
    dataset, source, target = sys.argv[1:]
    load(dataset)
    with open(source) as stream:
        lines = [json.loads(line) for line in stream]
    with ProcessPoolExecutor(WORKERS) as pool, open(target, "w") as stream:
        task_ids, programs = [line["task_id"] for line in lines], [line["solution"] for line in lines]
        for result in pool.map(check, [dataset] * len(lines), task_ids, programs):
            stream.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

"""Made-up results of all stages of the small recipe, in the formats of the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.final_table.__main__ import all_jobs
from benchmarks.final_table.best import link
from benchmarks.final_table.jobs import Setup

PREFIX = {"humaneval": "HumanEval", "humaneval+": "HumanEval", "mbpp": "Mbpp"}


def verdict(passed: bool) -> dict[str, Any]:
    return {"passed": passed, "outcome": "pass" if passed else "wrong", "detail": "", "cpu_s": 0.01}


def write_score(scratch: Path, name: str, task: str, kind: str, *, right: list[int], samples: int = 1) -> None:
    """Write a score: `right` passing samples of each problem, the first ones."""
    tasks = {f"{PREFIX[task]}/{i}": [verdict(j < count) for j in range(samples)] for i, count in enumerate(right)}
    _common.write_json(scratch / "scores" / f"{name}-{task}-{kind}.json", {"format": 1, "tasks": tasks})


def write_model(scratch: Path, name: str, *, greedy: list[int], sampled: list[int]) -> None:
    for task in PREFIX:
        write_score(scratch, name, task, "greedy", right=greedy)
        answers = [
            {"task_id": f"{PREFIX[task]}/{i}", "stop_reason": "end" if i < 3 else "length"} for i in range(len(greedy))
        ]
        path = scratch / "scores" / f"{name}-{task}-greedy.samples.jsonl"
        path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    for task in ("humaneval", "mbpp"):
        write_score(scratch, name, task, "samples", right=sampled, samples=10)


def write_held_out(scratch: Path, name: str, nll: list[float]) -> None:
    counts = {"tokens": 10, "bytes": 40, "chunks": [5], "boundaries": [8], "kl_sum": [0.0]}
    sums = [{"nll_sum": [value], "chunk_kl_sum": [value / 2], "cell_kl_sum": [value / 4]} for value in nll]
    rows = [{"document": f"d{i}", "window": 0, **counts, **values} for i, values in enumerate(sums)]
    interval = {"mean": sum(nll), "low": 0.0, "high": 1.0}
    measures = {"bits_per_byte": interval, "chunk_kl": interval, "cell_kl": interval}
    models = [{"source": name, "measures": measures}]
    _common.write_json(scratch / "held_out" / f"{name}-responses.json", {"models": models, "rows": rows})


def write_run(scratch: Path, name: str, *, tokens: int, seconds: float) -> None:
    _common.write_json(scratch / "runs" / name / "run.json", {"train": {"tokens": tokens, "seconds": seconds}})


def write_choices(scratch: Path, name: str, task: str, method: str, rates: list[float]) -> None:
    tasks = {f"{PREFIX[task]}/{i}": {method: {"sample": 0, "pass@1": rate}} for i, rate in enumerate(rates)}
    _common.write_json(scratch / "choices" / f"{name}-{task}.json", {"kind": "rerank", "tasks": tasks})


def write_refinement(scratch: Path, name: str, task: str) -> None:
    """Write greedy answers of which the second is mended, and samples of which the first of a problem is right."""
    folder = scratch / "refinement" / f"refine-{name}" / task
    folder.mkdir(parents=True)
    ids = [f"{PREFIX[task]}/{i}" for i in range(4)]
    attempt = {"tokens": 10, "visible_tests": 2, "visible_outcome": "wrong", "end": "passed"}
    lines, verdicts, choices = [], {}, {}
    for number, task_id in enumerate(ids):
        passed = [False, True] if number == 1 else [number == 0]
        attempts = [attempt | {"visible_passed": 2 * flag} for flag in passed]
        lines.append(json.dumps({"task_id": task_id, "attempts": attempts}) + "\n")
        verdicts[task_id] = [verdict(flag) for flag in passed]
        choices[task_id] = {
            "passed": [False, False],
            "tokens": [10, 10],
            "visible_tests": 2,
            "visible_passed": [0, 0],
            "majority": {"2": 0},
        }
    (folder / "failure.samples.jsonl").write_text("".join(lines))
    _common.write_json(folder / "failure-attempts.json", {"tasks": verdicts})
    _common.write_json(folder / "choices.json", choices)


def write_marks(setup: Setup, seconds: float) -> None:
    for job in all_jobs(setup):
        mark = {"arguments": list(job.stage.arguments), "seconds": seconds, "provenance": "made up, commit 0"}
        _common.write_json(setup.scratch / "marks" / f"{job.stage.name}.json", mark)


def write_all(setup: Setup) -> None:
    """Write the results of all stages but the arm `self`, which is not run."""
    scratch = setup.scratch
    write_marks(setup, 60.0)
    write_model(scratch, "base", greedy=[0, 0, 0, 0], sampled=[1, 0, 0, 0])
    write_model(scratch, "teacher", greedy=[1, 1, 1, 1], sampled=[10, 10, 10, 5])
    for seed in (0, 1):
        write_model(scratch, f"sft-{seed}", greedy=[1, 0, 0, 0], sampled=[2, 0, 0, 0])
        write_model(scratch, f"kd-{seed}", greedy=[1, 1, seed, 0], sampled=[4, 2, 0, 0])
        write_held_out(scratch, f"sft-{seed}", [20.0, 10.0])
        write_held_out(scratch, f"kd-{seed}", [10.0, 10.0 + seed])
        for arm in ("sft", "kd"):
            write_run(scratch, f"{arm}-{seed}", tokens=200, seconds=30.0 + seed)
            link(scratch / "runs" / f"best-{seed}", f"kd-{seed}")
        for task in ("humaneval", "mbpp"):
            write_choices(scratch, f"best-{seed}", task, "majority", [1.0, 0.5, 0.0, 0.0])
            write_refinement(scratch, f"best-{seed}", task)
    write_held_out(scratch, "base", [40.0, 40.0])
    write_choices(scratch, "teacher", "mbpp", "majority", [1.0, 1.0, 1.0, 1.0])
    scores = {arm: {"pass@1": rate, "bits per byte": 1.0} for arm, rate in (("sft", 0.1), ("kd", 0.25))}
    _common.write_json(scratch / "best.json", {"arm": "kd", "scores": scores})
    nearest = {
        "benchmarks": [{"name": "humaneval", "problems": 164}],
        "caches": {
            "responses": {
                "rows": 20,
                "at_least": {"25%": 1, "50%": 0},
                "nearest": [
                    {"share": 0.3, "path": "601", "overlap": "prompt of humaneval/7: 30% of its words n-grams"}
                ],
            }
        },
    }
    _common.write_json(scratch / "nearest.json", nearest)
    (scratch / "responses").mkdir()
    (scratch / "responses" / "0.arrow").write_bytes(b"x" * 2_000_000)

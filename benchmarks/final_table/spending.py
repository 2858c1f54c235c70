"""What each row cost: trained tokens, wall time and bytes of cache, from the marks and records of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._stages import Stage
from benchmarks.final_table.costs import finished
from benchmarks.final_table.jobs import Job, Setup
from benchmarks.final_table.students import CACHES
from benchmarks.final_table.tables import Row, read, resolved


def spent(setup: Setup, jobs: Sequence[Job], row: Row) -> dict[str, float]:
    """Return the figures of a row; {} where nothing was trained, or nothing is finished.

    Returns:
        `tokens` and `training_s` of one student, means over seeds; `data_s`, the time of all stages that made what it
        read, and `bytes` of its caches. Stages that ran elsewhere count with the time of their mark.
    """
    names = [resolved(setup.scratch, name) for name in row.names]
    stages = {job.stage.name: job.stage for job in jobs}
    records = {name: _records(setup, name) for name in names if name in stages}
    done = {name: found for name, found in records.items() if all(found)}
    if row.choice or row.key == "base" or not done:
        return {}
    trained = [record["train"] for found in done.values() for record in found]
    needed = {name: _needed(stages, name) for name in done}
    return {
        "tokens": sum(train["tokens"] for train in trained) / len(done),
        "training_s": sum(train["seconds"] for train in trained) / len(done),
        "data_s": sum(_data_seconds(setup, stages, found) for found in needed.values()) / len(done),
        "bytes": sum(_bytes(setup, name) for name in done) / len(done),
    }


def _records(setup: Setup, name: str) -> list[dict[str, Any]]:
    """Return run.json of each run of a student: two for the arm with an on-policy round."""
    arm, _, seed = name.rpartition("-")
    runs = [f"kd-half-{seed}", name] if arm == "on-policy" else [name]
    return [read(setup.scratch / "runs" / run / "run.json") for run in runs]


def _needed(stages: Mapping[str, Stage], name: str) -> set[str]:
    """Return all stages that a stage needs."""
    found: set[str] = set()
    open_names = list(stages[name].needs)
    while open_names:
        current = open_names.pop()
        if current not in found:
            found.add(current)
            open_names += stages[current].needs
    return found


def _data_seconds(setup: Setup, stages: Mapping[str, Stage], names: set[str]) -> float:
    data = [stages[name] for name in names if stages[name].module != "student_train"]
    return sum(finished(stage, setup.scratch) or 0.0 for stage in data)


def _bytes(setup: Setup, name: str) -> int:
    arm, _, seed = name.rpartition("-")
    caches = ["responses", f"round2-{seed}"] if arm == "on-policy" else [CACHES[arm]]
    return sum(path.stat().st_size for cache in caches for path in (setup.scratch / cache).glob("*.arrow"))

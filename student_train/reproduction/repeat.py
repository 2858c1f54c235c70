"""`student-train --repeat`: the settings of a recorded run for this machine, and the comparison after training."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.runtime.machine import num_threads
from shards.storage.atomic import write_atomic
from student_train.config import Config, from_dict
from student_train.data.mixture import describe_entries, open_mixture
from student_train.errors import TrainError
from student_train.model.base import known_base_digests
from student_train.outputs.weight_digest import exported_sha256
from student_train.reproduction.fetch import RunSource, fetch_shards
from student_train.reproduction.recorded_run import RecordedRun
from student_train.reproduction.verdict import DIFFERENT, compare, verdict_lines

RESULT_NAME = "repeat.json"
FORMAT = 1
_OF_THIS_MACHINE = frozenset(
    {
        "shards",
        "student",
        "out",
        "control",
        "keep",
        "tensorboard",
        "wandb",
        "progress",
        "prefetch",
        "device",
        "follow_wait",
    }
)
"""Settings that a published record does not decide: they name places and services of the machine that trained."""
_FIGURE_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}
"""Largest difference of a figure that batches of another shape make, by the type of the arithmetic."""
_BASE_DIGESTS = ("weights_sha256", "config_sha256")
"""Keys of the model that a student starts from, in a record."""


def settings_of(
    source: RunSource,
    settings: Mapping[str, Any],
    given: Collection[str],
    *,
    needs_out: bool = True,
    log: Callable[[str], None],
) -> Config:
    """Return the settings that repeat a run on this machine. Its shards are fetched where they are not here.

    Args:
        source: The run.
        settings: Values of the command line by name, defaults included.
        given: Names of those that the command line gives; they win over the record.
        needs_out: Whether a folder is written, which the command line has to name.
        log: Prints a line for people.

    Raises:
        TrainError: `--out` is missing or holds the run itself, the shards are not those of the run, or the base model
            is another one.
        ShardError: The shards cannot be reached.
    """
    run = RecordedRun.read(source.record)
    recorded = _with_threads(from_dict(run.record["config"]), run.record)
    if needs_out:
        _require_own_out(source, Path(settings["out"]) if "out" in given else None)
    if source.publication is None:
        return replace(recorded, **{name: settings[name] for name in given})
    own = {name: settings[name] for name in {*given, *_OF_THIS_MACHINE}}
    if "student" not in given:
        own["student"] = str(source.base) if source.base is not None else recorded.student
    if "shards" not in given:
        own["shards"] = _fetch_all(source, recorded, log)
    config = replace(recorded, **own)
    _require_same_start(config, run)
    return config


def compare_with(source: RunSource, out: Path, *, log: Callable[[str], None]) -> bool:
    """Compare the run in a folder with the one that it repeats, and write the verdict to `repeat.json`.

    A run with other settings or other shards is none to compare; the log says so.

    Args:
        source: The run that was repeated.
        out: Folder of the finished repeated run.
        log: Prints a line for people.

    Returns:
        Whether the verdict, if there is one, is identical or equivalent.
    """
    recorded, repeated = RecordedRun.read(source.record), RecordedRun.read(out / "run.json")
    if reason := _not_comparable(recorded, repeated):
        log(f"{out}: not compared with {recorded.name}: {reason}")
        return True
    result = compare(recorded, repeated, noise=source.noise or recorded.record.get("noise"))
    about = {"run": source.address or recorded.name, "manifest_sha256": recorded.manifests}
    content = {"format": FORMAT, **about, **result}
    write_atomic(out / RESULT_NAME, (json.dumps(content, indent=1) + "\n").encode())
    for line in verdict_lines(result):
        log(f"{out}: {line}")
    return bool(result["verdict"] != DIFFERENT)


def figures_hold(source: RunSource, model: str, evaluation: Mapping[str, Any], *, log: Callable[[str], None]) -> bool:
    """Return whether an evaluated model has the held-out figures of a record; true for a model of other weights.

    Args:
        source: The recorded run.
        model: Folder of the evaluated model. Its weights are compared with the record's digest.
        evaluation: What `--evaluate` recorded, with the settings of the run.
        log: Prints a line for people.
    """
    run = RecordedRun.read(source.record)
    found = exported_sha256(Path(model)) if Path(model).is_dir() else ""
    if not run.exported or found != run.exported:
        log(f"{model}: not the model of {source.address or run.name}, whose weights have another digest: not compared")
        return True
    if evaluation["chosen"]["rows"] != "held-out":
        log(f"{model}: the weights are the record's, whose figures are of held-out rows: not compared")
        return True
    after = run.record["held_out"]["after"] or {}
    measures = evaluation["models"][0]["measures"]
    rounding = _FIGURE_ROUNDING.get(run.record["config"]["dtype"], max(_FIGURE_ROUNDING.values()))
    wrong = []
    for measure in run.measures:
        then, now = (part.get(measure.name, {}).get("mean") for part in (after, measures))
        if then is None or now is None or not abs(now - then) <= rounding * max(1.0, abs(then)):
            wrong.append(f"{measure.name} is {now}, the record says {then}")
    verdict = f"found other figures: {'; '.join(wrong)}" if wrong else "the weights and the figures are the record's"
    log(f"{model}: {verdict}")
    return not wrong


def _with_threads(recorded: Config, record: dict[str, Any]) -> Config:
    """Return settings with the number of threads that the run had, where this machine has as many cores."""
    threads = record.get("hardware", {}).get("threads")
    if recorded.threads or type(threads) is not int or threads > num_threads().number:
        return recorded
    return replace(recorded, threads=threads)


def _require_own_out(source: RunSource, out: Path | None) -> None:
    """Check that the repeated run gets a folder of its own: a run compared with itself is always identical."""
    name = source.address or source.record
    if out is None:
        raise TrainError(f"{name}: repeating a run needs --out, the folder of the repeated one")
    found = out / "run.json"
    if found.is_file() and found.read_bytes() == source.record.read_bytes():
        raise TrainError(
            f"{out}: found the recorded run itself, or a copy of it, expected the folder of another run, to compare "
            f"with {name}; name another --out"
        )


def _fetch_all(source: RunSource, recorded: Config, log: Callable[[str], None]) -> tuple[str, ...]:
    """Return the values of `--shards` for the fetched caches, with the recorded weights."""
    assert source.publication is not None
    caches = source.publication.caches
    if len(caches) != len(recorded.sources):
        raise TrainError(
            f"{source.address}: found {len(caches)} caches, expected the {len(recorded.sources)} of its record; ask "
            "its publisher, or name copies of them with --shards"
        )
    folders = [fetch_shards(cache, run=source.address, log=log) for cache in caches]
    weights = ["" if known.weight is None else f"={float(known.weight)!r}" for known in recorded.sources]
    return tuple(f"{folder}{weight}" for folder, weight in zip(folders, weights, strict=True))


def _require_same_start(config: Config, run: RecordedRun) -> None:
    """Check that shards and base model are those of the run, before hours of training show that they are not."""
    mixture = open_mixture(replace(config, follow=False))  # what the run followed is complete by now
    if mixture.entries != run.entries:
        raise TrainError(
            f"{config.shard_paths}: found manifest {describe_entries(mixture.entries)}, expected "
            f"{describe_entries(run.entries)}, on which the run was trained; leave --shards out to fetch it"
        )
    base = known_base_digests(config.student, mixture.caches[0].manifest.teacher)
    student = run.record["student"]
    for what in _BASE_DIGESTS:
        if base is not None and student.get(what) and getattr(base, what) != student[what]:
            raise TrainError(
                f"student {config.student or 'of the record'}: found {what} {getattr(base, what)[:12]}, expected "
                f"{student[what][:12]}, which the run began with; name that model with --student"
            )


def _not_comparable(recorded: RecordedRun, repeated: RecordedRun) -> str:
    """Return why two runs are not one; "" where they are."""
    if not recorded.exported:
        return "it is of an earlier release, which recorded no digests of weights"
    data = [describe_entries(run.entries) for run in (recorded, repeated)]
    if recorded.entries != repeated.entries:
        return f"it was trained on manifest {data[0]}, this run on {data[1]}"
    then, now = (from_dict(run.record["config"]).identity() for run in (recorded, repeated))
    for name in then:
        if name not in ("student", "follow") and then[name] != now[name]:
            return f"it has {name.replace('_', '-')} {then[name]!r}, this run {now[name]!r}"
    starts = [[run.record["student"].get(key) for key in _BASE_DIGESTS] for run in (recorded, repeated)]
    return "the two began with different base models" if starts[0] != starts[1] else ""

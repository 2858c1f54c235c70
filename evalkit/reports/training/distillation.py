"""Tables of a distillation report: training runs beside their controls, from their files and score files.

The tables hold every measure and benchmark that the files hold, each with its interval. A missing value is named as
missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.reports.benchmark_rows import benchmark_rows, results_of
from evalkit.reports.score_file import ScoreFile, read_score
from evalkit.reports.training.measures import HeldOutMeasure, measures_of, missing_measures, paired_difference
from evalkit.reports.training.run_dir import TrainingRun, read_run
from evalkit.scoring.stats import Estimate
from evalkit.tasks.registry import title_of
from evalkit.text import visible

ABSENT = "-"
_DIGITS = 3
"""Digits of held-out measures after the point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """Completions of one prompt by several models."""

    prompt: str
    texts: tuple[tuple[str, str], ...]
    """(model, text) pairs; control characters are escaped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One run beside its control."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells as text; an interval follows its mean as ` [low, high]`."""
    remarks: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """(name, value) pairs about the run's inputs."""
    sizes: tuple[tuple[str, float], ...]
    """(field, bytes per token) of the shards, the largest first; () where the record has none."""
    next_steps: tuple[tuple[str, str], ...]
    """(purpose, command) pairs: what can be done with the run."""
    completions: tuple[Completion, ...]
    """Empty if the run wrote none."""
    missing_completions: str
    """Models of the run without completions, and the reason; "" if none is missing."""
    run: TrainingRun
    control: TrainingRun | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All sections, in the order of the run folders."""

    sections: tuple[Section, ...]


def build(run_dirs: list[Path], *, scores: list[Path]) -> Report:
    """Read runs and results and build the tables.

    Args:
        run_dirs: Output folders of student-train.
        scores: Results of `evalkit score`. Each is matched to the run whose checkpoint it names;
            `RUN_DIR/evalkit/score.json` is found without being named.

    Raises:
        EvalError: A folder holds no finished run, or a file is broken.
    """
    results = [read_score(path) for path in scores]
    sections = []
    for folder in run_dirs:
        run = read_run(folder)
        control = read_run(folder / "control") if (folder / "control" / "run.json").is_file() else None
        sections.append(_section(run, control, results, only=len(run_dirs) == 1))
    return Report(sections=tuple(sections))


def _section(run: TrainingRun, control: TrainingRun | None, results: Sequence[ScoreFile], *, only: bool) -> Section:
    benchmark_cells, benchmark_remarks = _benchmark_rows(run, control, results, only=only)
    completions, missing_completions = _completions(run, control)
    return Section(
        title=f"{_teacher(run)} -> {_student(run)}",
        columns=("", "before training", run.label, control.label if control else "control", "difference"),
        rows=(
            ("bytes per token on disk", ABSENT, _number(run.get("shards", "bytes_per_token"), 1), ABSENT, ""),
            *(_measure_row(run, control, key, measure) for key, measure in measures_of(run).items()),
            *benchmark_cells,
            ("steps / tokens / seconds", ABSENT, _training(run), _training(control) if control else ABSENT, ""),
        ),
        remarks=(
            *_explanations(run, control),
            *(f"{run.folder}/run.json holds no {key}: not shown" for key in missing_measures(run)),
            *benchmark_remarks,
            *_control_remarks(run, control),
        ),
        facts=_facts(run),
        sizes=_sizes(run),
        next_steps=_next_steps(run),
        completions=completions,
        missing_completions=missing_completions,
        run=run,
        control=control,
    )


def _measure_row(run: TrainingRun, control: TrainingRun | None, key: str, measure: HeldOutMeasure) -> tuple[str, ...]:
    before, after = run.get("held_out", "before", key), run.get("held_out", "after", key)
    other = control.get("held_out", "after", key) if control else None
    change = paired_difference(run, control, key) if control else None
    return (measure.label, *(_estimate(value) for value in (before, after, other)), _signed(change) if change else "")


def _benchmark_rows(
    run: TrainingRun, control: TrainingRun | None, results: Sequence[ScoreFile], *, only: bool
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return the rows of benchmarks, and remarks about them.

    Where there is one run and one result that names no checkpoint of it, the result is taken to be that of the run.
    """
    run_results = results_of(run.folder, results)
    control_results = results_of(control.folder, results) if control else []
    assumed = ""
    if not run_results and only and len(results) == 1 and results[0] not in control_results:
        run_results = list(results)
        titles = " and ".join(title_of(name) for name in results[0].scores) or "The result"
        assumed = f"{titles} was scored on {results[0].source}, taken to be this run's checkpoint"
    table = benchmark_rows(run_results, control_results)
    cells: list[tuple[str, ...]] = [
        (row.label, ABSENT, row.run, row.control if control else ABSENT, row.difference) for row in table.rows
    ]
    return cells, (*([assumed] if assumed else []), *table.remarks)


def _completions(run: TrainingRun, control: TrainingRun | None) -> tuple[tuple[Completion, ...], str]:
    """Return the completions, and which models lack them."""
    columns = {
        "teacher": run.completions.get("teacher"),
        run.label: run.completions.get("student"),
        "control": control.completions.get("student") if control else None,
    }
    texts_by_model = {name: texts for name, texts in columns.items() if texts}
    if run.label not in texts_by_model:
        return (), ""
    shown = tuple(
        Completion(
            prompt=visible(prompt),
            texts=tuple((name, visible(texts[prompt])) for name, texts in texts_by_model.items() if prompt in texts),
        )
        for prompt in texts_by_model[run.label]
    )
    missing = []
    if "teacher" not in texts_by_model:
        missing.append("teacher: not shown, as its weights were not loaded for training")
    if control and "control" not in texts_by_model:
        missing.append("control: its folder holds no completions")
    return shown, "; ".join(missing)


def _explanations(run: TrainingRun, control: TrainingRun | None) -> list[str]:
    held_out = run.get("held_out") or {}
    size = ", ".join(f"{held_out[key]:,} {key}" for key in ("rows", "tokens", "bytes") if key in held_out)
    documents = len({document for document, *_ in run.held_out})
    lines = [
        f"held out: {size or 'size not recorded'}{f', {documents} documents' if documents else ''}, never trained on",
        "[low, high]: 95% intervals, by a bootstrap over held-out documents; over problems for benchmarks",
    ]
    if control:
        lines.append("difference: distilled minus control, paired; the control is trained with cross-entropy only")
    return lines


def _control_remarks(run: TrainingRun, control: TrainingRun | None) -> list[str]:
    """Return the reasons why run and control cannot be compared."""
    if control is None:
        return [f"no control run in {run.folder}/control: nothing to compare with"]
    if not run.held_out or run.held_out.keys() != control.held_out.keys():
        return ["run and control were not measured on the same held-out rows: no paired difference"]
    if any(run.get("train", key) != control.get("train", key) for key in ("steps", "tokens")):
        return ["run and control differ in steps or tokens: not an equal comparison"]
    return []


def _next_steps(run: TrainingRun) -> tuple[tuple[str, str], ...]:
    """Return commands for the run's own folders; a path is quoted where a shell would split it."""
    caches = run.get("caches") or [{"path": run.get("config", "shards") or "shards/"}]
    shards, student = (shlex.quote(str(path)) for path in (caches[0]["path"], run.folder))
    return (
        ("see a row with the teacher's choices", f"logit-shards inspect {shards} --row 5 --html row.html"),
        (
            "see where the student is furthest from the teacher",
            f"student-train --evaluate {student} --shards {shards} --json e.json && evalkit report e.json --out e.html",
        ),
        ("score ten samples of each problem", f"evalkit score {student} --tasks humaneval --n 10 --temperature 0.8"),
        ("record a teacher on your own code", "teacher-dump --model smollm2-135m --data YOUR_FOLDER --out shards/"),
    )


def _sizes(run: TrainingRun) -> tuple[tuple[str, float], ...]:
    sizes = run.get("shards", "bytes_by_field") or {}
    return tuple(sorted(((visible(name), float(size)) for name, size in sizes.items()), key=lambda pair: -pair[1]))


def _facts(run: TrainingRun) -> tuple[tuple[str, str], ...]:
    shards, student = run.get("shards") or {}, run.get("student") or {}
    teacher = shards.get("teacher") or {}
    facts = [
        ("teacher", " ".join(str(teacher[key]) for key in ("name", "revision") if teacher.get(key))),
        ("student", _student(run)),
        ("student's parameters", f"{student['parameters']:,}" if student.get("parameters") else ""),
        ("tokens in the shards", f"{shards['tokens']:,}" if shards.get("tokens") else ""),
        ("bytes on disk", f"{shards['bytes_on_disk']:,}" if shards.get("bytes_on_disk") else ""),
        ("manifest", str(run.get("manifest_sha256") or "")[:16]),
        ("versions", ", ".join(f"{key} {value}" for key, value in (run.get("versions") or {}).items())),
        ("command", " ".join(map(str, run.get("command") or []))),
    ]
    return tuple((name, value) for name, value in facts if value)


def _teacher(run: TrainingRun) -> str:
    return str(run.get("shards", "teacher", "name") or "teacher not recorded")


def _student(run: TrainingRun) -> str:
    source = str(run.get("student", "source") or "student not recorded").rstrip("/").rpartition("/")[2]
    layers, parameters = run.get("student", "layers"), run.get("student", "parameters")
    parts = [f"{layers} layers"] if layers else []
    parts += [f"{parameters / 1e6:,.0f} M parameters"] if parameters else []
    return f"{source} ({', '.join(parts)})" if parts else source


def _training(run: TrainingRun) -> str:
    train = run.get("train") or {}
    parts = [f"{train[key]:,.0f}" for key in ("steps", "tokens", "seconds") if key in train]
    return " / ".join(parts) if parts else "not recorded"


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "not recorded"


def _estimate(value: Any) -> str:
    """Return a mean with its interval if it has one; `ABSENT` for None."""
    if not isinstance(value, dict) or "mean" not in value:
        return _number(value, _DIGITS) if value is not None else ABSENT
    text = f"{value['mean']:.{_DIGITS}f}"
    if "low" in value and "high" in value:
        text += f" [{value['low']:.{_DIGITS}f}, {value['high']:.{_DIGITS}f}]"
    return text


def _signed(value: Estimate) -> str:
    return f"{value.mean:+.{_DIGITS}f} [{value.low:+.{_DIGITS}f}, {value.high:+.{_DIGITS}f}]"

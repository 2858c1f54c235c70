"""What did distillation give? One table and one HTML page from a run's files and HumanEval results.

Says what was measured, on how much, with which interval, and claims nothing else. What a file does not hold
is named as missing, not filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import require_writable, write_text
from evalkit.reports.comparison import read_result
from evalkit.reports.run_dir import Run, paired_difference, read_run
from evalkit.scoring import stats
from evalkit.text import visible

_ABSENT = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What the models wrote after one prompt."""

    prompt: str
    texts: tuple[tuple[str, str], ...]
    """(model, text), side by side; control characters are escaped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One run beside its control: a table of text, what to keep in mind, and what the picture needs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    completions: tuple[Completion, ...]
    """Empty where the run wrote none."""
    missing_completions: str
    """Which models of the run have no completions, and why; "" where none is missing."""
    run: Run
    control: Run | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All sections, in the order of the folders."""

    sections: tuple[Section, ...]


def build(run_dirs: list[Path], *, scores: list[Path]) -> Report:
    """Read the runs and results and lay out the tables.

    Results are matched to runs by the checkpoint that they name; `RUN_DIR/evalkit/score.json` is found by itself.

    Raises:
        EvalError: a folder holds no finished run, or a file is broken.
    """
    results = [read_result(path) for path in scores]
    sections = []
    for folder in run_dirs:
        run = read_run(folder)
        control = read_run(folder / "control") if (folder / "control" / "run.json").is_file() else None
        sections.append(_section(run, control, results, only=len(run_dirs) == 1))
    return Report(sections=tuple(sections))


def _section(run: Run, control: Run | None, results: list[dict[str, Any]], *, only: bool) -> Section:
    remarks: list[str] = []
    rows: list[tuple[str, ...]] = [
        ("bytes per token on disk", _ABSENT, _number(run.get("shards", "bytes_per_token"), 1), _ABSENT, "")
    ]
    for name, text, digits in (
        ("kl", "held-out KL to teacher, nats/token", 3),
        ("bits_per_byte", "held-out bits per byte", 3),
        ("top1_agreement", "held-out top-1 agreement with teacher", 3),
    ):
        before, after = run.get("held_out", "before", name), run.get("held_out", "after", name)
        if before is None and after is None:
            remarks.append(f"{run.folder}/run.json holds no {name}: not shown")
            continue
        other = control.get("held_out", "after", name) if control else None
        change = paired_difference(run, control, name) if control else None
        cells = [_estimate(value, digits) for value in (before, after, other)]
        rows.append((text, *cells, _signed(change, digits) if change else ""))
    rows.append(_humaneval_row(run, control, results, remarks, only=only))
    rows.append(
        (
            "steps / tokens / seconds",
            _ABSENT,
            _training(run),
            _training(control) if control else _ABSENT,
            "",
        )
    )
    if control is None:
        remarks.append(f"no control run in {run.folder}/control: nothing to compare with")
    elif not run.held_out or run.held_out.keys() != control.held_out.keys():
        remarks.append("run and control were not measured on the same held-out rows: no paired difference")
    elif (run.get("train", "steps"), run.get("train", "tokens")) != (
        control.get("train", "steps"),
        control.get("train", "tokens"),
    ):
        remarks.append("run and control differ in steps or tokens: not an equal comparison")
    return Section(
        title=f"{_teacher(run)} -> {_student(run)}",
        columns=("", "before training", run.label, control.label if control else "control", "difference"),
        rows=tuple(rows),
        remarks=(*_explanations(run, control), *remarks),
        facts=_facts(run),
        **_completions(run, control),
        run=run,
        control=control,
    )


def _completions(run: Run, control: Run | None) -> dict[str, Any]:
    """Return the fields `completions` and `missing_completions` of a section."""
    columns = {
        "teacher": run.completions.get("teacher"),
        run.label: run.completions.get("student"),
        "control": control.completions.get("student") if control else None,
    }
    there = {name: texts for name, texts in columns.items() if texts}
    if run.label not in there:
        return {"completions": (), "missing_completions": ""}
    shown = tuple(
        Completion(
            prompt=visible(prompt),
            texts=tuple((name, visible(texts[prompt])) for name, texts in there.items() if prompt in texts),
        )
        for prompt in there[run.label]
    )
    missing = []
    if "teacher" not in there:
        missing.append("teacher: not shown, as its weights were not loaded for training")
    if control and "control" not in there:
        missing.append("control: its folder holds no completions")
    return {"completions": shown, "missing_completions": "; ".join(missing)}


def _humaneval_row(
    run: Run, control: Run | None, results: list[dict[str, Any]], remarks: list[str], *, only: bool
) -> tuple[str, ...]:
    ours = _result_of(run.folder, results)
    theirs = _result_of(control.folder, results) if control else None
    if ours is None and only and len(results) == 1 and results[0] is not theirs:
        ours = results[0]
        source = (ours.get("checkpoint") or ours.get("samples") or {}).get("source", ours["path"])
        remarks.append(f"HumanEval was scored on {source}, taken to be this run's checkpoint")
    cells = []
    for result in (ours, theirs):
        score = result["scores"].get("humaneval") if result else None
        if score is None or "pass@1" not in score.get("interval", {}):  # none, or no sample could be judged
            cells.append("not scored")
            continue
        interval = score["interval"]["pass@1"]
        cells.append(f"{_percent(score['pass@1'])} [{_percent(interval['low'])}, {_percent(interval['high'])}]")
        if result and result.get("limit"):
            remarks.append(f"HumanEval: only the first {result['limit']} problems were asked")
        elif score["solved"] == 0:
            remarks.append(f"HumanEval: none of {score['problems']} solved, which says little of a model this small")
    if control is None:
        cells[1] = _ABSENT
    change = ""
    if ours and theirs and (both := [task for task in ours["tasks"] if task in theirs["tasks"]]):
        share = [[_share(result["tasks"][task]) for task in both] for result in (ours, theirs)]
        estimate = stats.difference(share[0], share[1])
        change = f"{100 * estimate.mean:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return ("HumanEval pass@1, %", _ABSENT, cells[0], cells[1], change)


def _result_of(folder: Path, results: list[dict[str, Any]]) -> dict[str, Any] | None:
    for result in results:
        source = (result.get("checkpoint") or {}).get("source")
        if source and Path(source).resolve() == folder.resolve():
            return result
    own = folder / "evalkit" / "score.json"
    return read_result(own) if own.is_file() else None


def _share(verdicts: list[dict[str, Any]]) -> float:
    return sum(bool(verdict["passed"]) for verdict in verdicts) / len(verdicts)


def _explanations(run: Run, control: Run | None) -> list[str]:
    held_out = run.get("held_out") or {}
    size = ", ".join(f"{held_out[key]:,} {key}" for key in ("rows", "tokens", "bytes") if key in held_out)
    documents = len({document for document, _ in run.held_out})
    lines = [
        f"held out: {size or 'size not recorded'}{f', {documents} documents' if documents else ''}, never trained on"
    ]
    lines.append("[low, high]: 95% intervals, by a bootstrap over held-out documents; over problems for HumanEval")
    if control:
        lines.append("difference: distilled minus control, paired; the control saw cross-entropy only")
    return lines


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
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


def _teacher(run: Run) -> str:
    return str(run.get("shards", "teacher", "name") or "teacher not recorded")


def _student(run: Run) -> str:
    source = str(run.get("student", "source") or "student not recorded").rstrip("/").rpartition("/")[2]
    layers, parameters = run.get("student", "layers"), run.get("student", "parameters")
    parts = [f"{layers} layers"] if layers else []
    parts += [f"{parameters / 1e6:,.0f} M parameters"] if parameters else []
    return f"{source} ({', '.join(parts)})" if parts else source


def _training(run: Run) -> str:
    train = run.get("train") or {}
    parts = [f"{train[key]:,.0f}" for key in ("steps", "tokens", "seconds") if key in train]
    return " / ".join(parts) if parts else "not recorded"


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "not recorded"


def _estimate(value: Any, digits: int) -> str:
    if not isinstance(value, dict) or "mean" not in value:
        return _number(value, digits) if value is not None else _ABSENT
    text = f"{value['mean']:.{digits}f}"
    if "low" in value and "high" in value:
        text += f" [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return text


def _signed(value: stats.Estimate, digits: int) -> str:
    return f"{value.mean:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def write(report: Report, *, out: Path, markdown: Path | None = None) -> None:
    """Write the HTML page, and the tables as Markdown if asked.

    Raises:
        EvalError: a file cannot be written, or the page's libraries are not installed.
    """
    for path in (out, markdown):
        if path is not None:
            require_writable(path)
    try:
        import jinja2

        from evalkit.reports.plots import curves
    except ImportError as error:
        raise EvalError(f"the page needs {error.name}, which is not installed; install 'teacherless[eval]'") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    pictures = [curves(section.run, section.control) for section in report.sections]
    page = environment.get_template("distillation.html.j2").render(sections=zip(report.sections, pictures, strict=True))
    write_text(out, page)
    if markdown is not None:
        write_text(markdown, as_markdown(report))


def as_markdown(report: Report) -> str:
    """Return the same tables as Markdown."""
    lines = []
    for section in report.sections:
        lines += [f"**{section.title}**", "", "| " + " | ".join(section.columns) + " |"]
        lines.append("|" + " --- |" * len(section.columns))
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in section.rows]
        lines += ["", *(f"- {remark}" for remark in section.remarks), ""]
    return "\n".join(lines)

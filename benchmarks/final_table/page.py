"""The page, the JSON file and the picture of the final table, from its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from benchmarks.final_table.costs import duration, size
from benchmarks.final_table.jobs import TEACHER, Setup
from benchmarks.final_table.runs import mark
from benchmarks.final_table.tables import Column, Row, columns, rows

NOT_RUN = "not run"
KLS = ("kl", "cell_kl")
"""KL to the teacher, of which a picture shows one: with a shared tokenizer, and across tokenizers."""
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
"""Markers of the generated part of a page. What stands around them, such as conclusions, is written by hand."""
PUBLISHED = {"greedy": "pass@1", "pass@1": "", "pass@10": "pass@10"}
"""Key of a published score, by the second word of a column's key; "" where nothing is published."""

CHOICES = (
    "Selectors choose among the samples of the columns beside them, so their first choice compares with pass@1 of",
    "the samples. Refinement begins with the greedy answer.",
)
"""What the table of scores says of its choices."""


def write(setup: Setup, found: dict[str, Any], out: Path, *, command: str) -> None:
    """Write the generated part of the page, its JSON file and its picture; only the JSON file if `out` is one."""
    _common.write_json(out.with_suffix(".json"), found)
    if out.suffix == ".json":
        return
    if not out.exists():
        _common.write_page(out, f"# {setup.recipe.title}\n\n{BEGIN}\n{END}")
    generated = text(setup, found, command=command, picture=out.with_suffix(".png").name)
    _common.replace_section(out, generated, begin=BEGIN, end=END)
    draw(setup, found, out.with_suffix(".png"))


def text(setup: Setup, found: dict[str, Any], *, command: str, picture: str) -> str:
    """Return the generated part of the page as Markdown."""
    budgets, seeds = setup.recipe.budgets, ", ".join(map(str, setup.recipe.seeds))
    scored = [column for column in columns(setup) if column.is_score]
    has_choices = any(row.choice for row in rows(setup))
    lines = [
        "## What was run",
        "",
        f"Teacher: {setup.recipe.teacher.title}. Student: {setup.recipe.student.title}.",
        f"Every student takes {budgets.steps} steps on source text or {budgets.response_steps} on responses, of",
        f"{budgets.batch_tokens:,} tokens at a peak learning rate of {budgets.learning_rate:g}, with seeds {seeds}.",
        "Written by",
        "",
        f"    {command}",
        "",
        *_run_lines(found),
        "",
        "## Scores",
        "",
        "Percent of problems, in brackets 95 % intervals by bootstrap over problems; means over seeds.",
        _sizes(setup),
        *(CHOICES if has_choices else ()),
        "",
        _scores(setup, found, scored),
        "",
        f"![Scores of all rows]({picture})",
        "",
        "## What each step adds",
        "",
        "Paired differences in points, problem by problem. **Bold**: the interval excludes zero. A model compares with",
        "the nearest model above that has the figure, a choice with the row above.",
        "",
        _differences(setup, found, scored, "over above"),
        "",
        *_choices_section(setup, found, scored),
        "All rows over the student as it is:",
        "",
        _differences(setup, found, scored, "over base"),
        "",
        "## Answers that end",
        "",
        f"Percent of the greedy answers that end before the limit of {setup.recipe.selection.new_tokens} tokens: by",
        "the model's end of turn, or after the code where the protocol stops there.",
        "",
        _values(setup, found, [column for column in columns(setup) if column.kind == "ends"]),
        "",
        *_held_out_section(setup, found),
        "## Costs",
        "",
        "Means over seeds of one student. Data: the stages that wrote, judged and recorded what it reads.",
        "",
        _costs(setup, found),
        "",
        *(_best_lines(found) if setup.candidates else ()),
        *_nearest_lines(found),
    ]
    return "\n".join(lines)


def _choices_section(setup: Setup, found: dict[str, Any], scored: Sequence[Column]) -> list[str]:
    """Return the table of choices over models; nothing where the recipe has no choice."""
    if not any(row.choice for row in rows(setup)):
        return []
    title = "Choices over the model alone, which answers greedily or draws a sample at random:"
    return [title, "", _differences(setup, found, scored, "over model"), ""]


def _run_lines(found: dict[str, Any]) -> list[str]:
    """Return how far each run is, and where and when its stages ran."""
    lines = [f"A cell that could have a figure and has none says `{NOT_RUN}`."]
    for number, run in enumerate(found["runs"], start=1):
        name = f" of run {number}, `recipes/{run['recipe']}`," if len(found["runs"]) > 1 else ""
        marked = f" Its figures have the mark {mark(number)}, and hollow points in the picture." if number > 1 else ""
        lines += ["", f"{run['finished']} of {run['stages']} stages{name} are finished.{marked}", ""]
        lines += [f"- {line}" for line in run["provenance"]]
    if len(found["runs"]) > 1:
        lines += [
            "",
            "A cell has the figure of the first run that has one. All differences are between figures of one run.",
        ]
    return lines


def _sizes(setup: Setup) -> str:
    """Return which problems are scored."""
    parts = []
    for task, benchmark in setup.recipe.benchmarks.items():
        greedy, sampled = setup.problems(task, benchmark.problems), setup.sampled(benchmark, task)
        samples = setup.recipe.selection.samples
        parts.append(f"{task}: {greedy} problems" + (f", {sampled} with {samples} samples each." if samples else "."))
    return " ".join(parts)


def _scores(setup: Setup, found: dict[str, Any], chosen: Sequence[Column]) -> str:
    published = [
        [
            f"*{item.title}: published, not run here* ({item.source})",
            *(_published(item.scores, column) for column in chosen),
        ]
        for item in setup.recipe.published
    ]
    return _values(setup, found, chosen, further=published)


def _values(
    setup: Setup, found: dict[str, Any], chosen: Sequence[Column], *, further: Sequence[Sequence[str]] = ()
) -> str:
    """Return a table of figures: a line for each row that can have one, and further lines."""
    cells = [
        [row.title, *(cell(found["rows"][row.key].get(column.key), row, column) for column in chosen)]
        for row in rows(setup)
        if any(applies(row, column) for column in chosen)
    ]
    return _common.markdown_table(("row", *(column.title for column in chosen)), [*cells, *further])


def cell(entry: dict[str, Any] | None, row: Row, column: Column) -> str:
    """Return a cell; empty where a method cannot have the figure."""
    if entry is None:
        return _not_run(row, column)
    unfinished = f" ({entry['seeds']} of {len(row.names)} seeds)" if entry["seeds"] < len(row.names) else ""
    return f"{_estimate(entry, column)}{mark(entry.get('run', 1))}{unfinished}"


def _not_run(row: Row, column: Column) -> str:
    """Return the text of a cell without a figure."""
    return NOT_RUN if applies(row, column) else ""


def applies(row: Row, column: Column) -> bool:
    """Return whether a row can have a figure: a choice has one answer, and refinement begins with the greedy one."""
    if not row.choice:
        return column.kind != "held-out" or row.key not in (TEACHER, "best")
    if row.choice in ("refinement", "samples of equal tokens"):
        return column.kind == "greedy" and not column.task.endswith("+")
    return column.kind == "samples" and column.k == 1


def _published(scores: dict[str, float], column: Column) -> str:
    metric = PUBLISHED[column.key.rpartition(" ")[2]]
    value = scores.get(f"{column.task} {metric}") if metric else None
    return "" if value is None else f"*{value:.1f}*"


def _estimate(entry: dict[str, Any], column: Column, sign: str = "") -> str:
    """Return a mean with its interval: in percent, or a held-out measure as it is."""
    factor, digits = (1, 4) if column.kind == "held-out" else (100, 1)
    mean, low, high = (f"{factor * entry[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _differences(setup: Setup, found: dict[str, Any], chosen: Sequence[Column], key: str) -> str:
    """Return the table of one kind of difference: a line for each row that can have it."""
    titles = {row.key: row.title for row in rows(setup)}
    cells = []
    for row in rows(setup):
        if row.key == "base" or (key == "over model" and not row.choice) or (key == "over above" and row.key == "best"):
            continue
        if not any(applies(row, column) for column in chosen):
            continue
        figures = [found["rows"][row.key].get(column.key) or {} for column in chosen]
        others = dict.fromkeys(titles[figure[key]["row"]] for figure in figures if key in figure)
        shown = [
            _signed(figure, key, column) if key in figure else _not_run(row, column)
            for figure, column in zip(figures, chosen, strict=True)
        ]
        cells.append([row.title, " or ".join(others), *shown])
    return _common.markdown_table(("row", "over", *(column.title for column in chosen)), cells)


def _signed(figure: dict[str, Any], key: str, column: Column) -> str:
    """Return one difference of a figure, in bold where its interval excludes zero."""
    entry = figure[key]
    text = _estimate(entry, column, "+")
    bold = "**" if entry["low"] > 0 or entry["high"] < 0 else ""
    return f"{bold}{text}{bold}{mark(figure.get('run', 1))}"


def _held_out_section(setup: Setup, found: dict[str, Any]) -> list[str]:
    """Return the tables of each cache: the measures that some row has, and their differences."""
    held_out = [column for column in begun(setup, found) if column.kind == "held-out"]
    lines: list[str] = []
    for cache in dict.fromkeys(column.task for column in columns(setup) if column.kind == "held-out"):
        every = [column for column in columns(setup) if column.kind == "held-out" and column.task == cache]
        chosen = [column for column in every if column in held_out] or every[:1]
        lines += [f"### {cache.capitalize()}", "", _values(setup, found, chosen), ""]
        for title, key in (("Over the model above:", "over above"), ("Over the student as it is:", "over base")):
            lines += [title, "", _differences(setup, found, chosen, key), ""]
    introduction = [
        "## Held-out text",
        "",
        "Of documents and prompts that no student is trained on; less is better. 95 % intervals by bootstrap over",
        "documents, differences are paired. Records of source text and of responses, the KL to the teacher included:",
        "",
    ]
    return [*introduction, *lines] if lines else []


def _costs(setup: Setup, found: dict[str, Any]) -> str:
    cells = []
    for row in rows(setup):
        if row.choice or row.key in ("base", TEACHER):
            continue
        cost = found["spent"][row.key]
        figures = (
            [f"{cost['tokens']:,.0f}", duration(cost["training_s"]), duration(cost["data_s"]), size(cost["bytes"])]
            if cost
            else [NOT_RUN, "", "", ""]
        )
        cells.append([row.title, *figures])
    return _common.markdown_table(("row", "trained tokens", "training", "data", "cache"), cells)


def _best_lines(found: dict[str, Any]) -> list[str]:
    best = found["best"]
    if not best:
        return ["The best arm is not chosen yet.", ""]
    scores = best["scores"].items()
    rates = ", ".join(f"`{arm}` {100 * score['pass@1']:.1f}" for arm, score in scores)
    return [f"*Best of these* is `{best['arm']}`, by pass@1 in percent on MBPP's validation part: {rates}.", ""]


def _nearest_lines(found: dict[str, Any]) -> list[str]:
    nearest = found["nearest"]
    lines = ["## Decontamination", ""]
    if not nearest:
        return [*lines, f"The distance of the training rows to the problems: {NOT_RUN}."]
    names = ", ".join(f"{item['name']} ({item['problems']} problems)" for item in nearest["benchmarks"])
    rows_of = []
    for cache, entry in nearest["caches"].items():
        first = entry["nearest"][0] if entry["nearest"] else {"overlap": "no common n-gram", "path": ""}
        counts = [str(count) for count in entry["at_least"].values()]
        rows_of.append([cache, f"{entry['rows']:,}", *counts, first["overlap"], first["path"]])
    shares = [f"rows with {share}" for share in next(iter(nearest["caches"].values()))["at_least"]]
    return [
        *lines,
        f"Every cache was filtered against {names}. The nearest row of each cache to any of these problems, by the",
        "share of the n-grams of a prompt, solution or test that it holds ([the rule](../corpus.md)):",
        "",
        _common.markdown_table(("cache", "rows", *shares, "nearest", "of"), rows_of),
    ]


def draw(setup: Setup, found: dict[str, Any], path: Path) -> None:
    """Draw one panel for each score, and one for the KL to the teacher: rows with their intervals."""
    columns_begun = begun(setup, found)
    scores = [column for column in columns_begun if column.is_score]
    chosen = [*scores, *[column for column in columns_begun if column.measure in KLS][-1:]]
    shown = rows(setup)
    size_in = (2.7 * max(1, len(chosen)) + 1.5, 0.3 * len(shown) + 1.4)
    with _common.figure(path, max(1, len(chosen)), size=size_in, share_y=True) as axes:
        for column, panel in zip(chosen, np.atleast_1d(axes), strict=False):
            for place, row in enumerate(reversed(shown)):
                entry = found["rows"][row.key].get(column.key)
                if entry is not None:
                    _draw_entry(panel, place, entry, scale=100 if column.is_score else 1, is_choice=bool(row.choice))
            panel.set_yticks(range(len(shown)), [row.title.replace("`", "") for row in reversed(shown)], fontsize=8)
            panel.set_title(column.title if column.is_score else f"{column.title},\n{column.task}", fontsize=9)
            panel.set_xlabel("%" if column.is_score else "nats", fontsize=8)
            panel.set_xlim(left=0)
            panel.set_ylim(-0.5, len(shown) - 0.5)
            panel.grid(axis="x", alpha=0.2)
            panel.spines[["top", "right"]].set_visible(False)


def begun(setup: Setup, found: dict[str, Any]) -> list[Column]:
    """Return the columns that have a figure."""
    measured = {key for entries in found["rows"].values() for key in entries}
    return [column for column in columns(setup) if column.key in measured]


def _draw_entry(panel: Any, place: int, entry: dict[str, Any], *, scale: int, is_choice: bool) -> None:
    mean, low, high = (scale * entry[key] for key in ("mean", "low", "high"))
    whiskers = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
    color, fill = "#b0413e" if is_choice else "#4063d8", "white" if entry.get("run", 1) > 1 else None
    panel.errorbar(mean, place, xerr=whiskers, fmt="o", color=color, markerfacecolor=fill, capsize=3)

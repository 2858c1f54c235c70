"""Figures of the table's rows, from the files that the stages left.

A row is one model, or the mean of a model's seeds, or a choice among samples. Each figure has its value for each
problem (or held-out document), so that rows are compared in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.final_table.caches import cache_names
from benchmarks.final_table.jobs import TEACHER, Setup
from benchmarks.final_table.recipe import ARMS, SELECTORS
from benchmarks.final_table.scores import refinement_plan
from benchmarks.final_table.students import COMPARED
from benchmarks.tools.refinement import at_tokens, first_passing, read_records, refined
from evalkit.scoring import stats

Values = dict[str, tuple[float, float]]
"""Unit (problem or document) -> numerator and denominator; 1 for a problem."""
TITLES = {
    "base": "student as it is",
    "sft-source": "SFT on source text",
    "kd-source": "KD on source text",
    "sft": "SFT on the teacher's responses",
    "kd": "KD on the teacher's responses",
    "kd-passed": "KD on the responses that pass",
    "on-policy": "KD, then one on-policy round",
    "self": "SFT on the student's own passing samples, no teacher",
    "best": "best of these",
    TEACHER: "teacher",
}
NATS = 0.6931471805599453
"""Nats of a bit."""
MEASURES = {
    "bits_per_byte": ("bits per byte", "nll_sum", "bytes"),
    "kl": ("KL in nats per token", "kl_sum", "tokens"),
    "chunk_kl": ("KL of chunks in nats", "chunk_kl_sum", "chunks"),
    "cell_kl": ("KL of cells in nats", "cell_kl_sum", "boundaries"),
}
"""Title of each held-out measure, and the sums of a row that it is the ratio of. `kl` is for a shared tokenizer."""
_REFINED, _EQUAL_TOKENS = "refinement", "samples of equal tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the table."""

    key: str
    title: str
    names: tuple[str, ...]
    """Models of the row, one for each seed."""
    choice: str = ""
    """Selector or other method that chooses; "" for the model's own answers."""

    @property
    def model(self) -> str:
        """Key of the row of the model that answers."""
        name = self.names[0]
        return "best" if name.startswith("best-") else name if self.choice else self.key


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column with figures."""

    key: str
    title: str
    task: str = ""
    """Benchmark of a score; cache of a held-out measure."""
    kind: str = "greedy"
    """`greedy` or `samples` of a score; `ends` for the share of greedy answers that end; `held-out`."""
    k: int = 1
    measure: str = ""
    """Held-out measure, of `MEASURES`."""

    @property
    def is_score(self) -> bool:
        """Whether the figure is a share of problems that are solved."""
        return self.kind in ("greedy", "samples")


def columns(setup: Setup) -> list[Column]:
    """Return the columns of a recipe."""
    from evalkit.tasks.registry import title_of

    found = []
    for task, benchmark in setup.recipe.benchmarks.items():
        title = title_of(task)
        found.append(Column(key=f"{task} greedy", title=f"{title} pass@1, greedy", task=task))
        if benchmark.plus:
            plus = benchmark.plus
            found.append(Column(key=f"{plus} greedy", title=f"{title_of(plus)} pass@1, greedy", task=plus))
        for k in (1, 10) if setup.recipe.selection.samples else ():
            column = Column(key=f"{task} pass@{k}", title=f"{title} pass@{k}, samples", task=task, kind="samples", k=k)
            found.append(column)
    found += [
        Column(key=f"{task} ends", title=title_of(task), task=task, kind="ends") for task in setup.recipe.benchmarks
    ]
    caches = [cache for cache in COMPARED if cache in cache_names(setup)]
    return [
        *found,
        *(
            Column(key=f"{measure} {name}", title=title, task=name, kind="held-out", measure=measure)
            for name in caches
            for measure, (title, _, _) in MEASURES.items()
        ),
    ]


def rows(setup: Setup) -> list[Row]:
    """Return the rows of a recipe, in the order of the table. Rows without results are there, too."""
    arms = [arm for arm in ARMS if arm in setup.recipe.arms]
    trained = {arm: Row(key=arm, title=TITLES[arm], names=tuple(setup.runs(arm))) for arm in arms}
    control = trained.pop("self", None)
    best = tuple(setup.best)
    found = [Row(key="base", title=TITLES["base"], names=("base",)), *trained.values()]
    if setup.candidates:
        found.append(Row(key="best", title=TITLES["best"], names=best))
    label = "best" if setup.candidates else "student"
    found += _choices(setup, label, best)
    if setup.recipe.selection.refinements:
        for method in (_EQUAL_TOKENS, _REFINED):
            found.append(Row(key=f"best + {method}", title=f"{label} + {method}", names=best, choice=method))
    if control is not None:
        found.append(control)
    return [
        *found,
        Row(key=TEACHER, title=TITLES[TEACHER], names=(TEACHER,)),
        *_choices(setup, TEACHER, (TEACHER,)),
    ]


def _choices(setup: Setup, label: str, names: tuple[str, ...]) -> list[Row]:
    selectors = [name for name in SELECTORS if name in setup.recipe.selection.selectors]
    return [Row(key=f"{label} + {name}", title=f"{label} + `{name}`", names=names, choice=name) for name in selectors]


def table(setup: Setup) -> dict[str, dict[str, Any]]:
    """Return the figures of all rows: row -> column -> estimate, with paired differences.

    `over above` is to the nearest row above that has the figure: of a model, to a model; of a choice, to any. `over
    model` is of a choice, to the model that wrote the samples. `over base` is to the untouched student. Two rows are
    compared where both have the same problems.
    """
    found: dict[str, dict[str, Any]] = {row.key: {} for row in rows(setup)}
    for column in columns(setup):
        values_of: dict[str, Values] = {}
        models: list[str] = []
        for row in rows(setup):
            values, seeds = _mean(_read(setup, row, column))
            if not values:
                continue
            entry = _estimate(values, column) | {"seeds": seeds, "units": len(values)}
            others = list(values_of) if row.choice else models
            compared = {
                "over above": others[-1:],
                "over base": ["base"],
                "over model": [row.model] if row.choice else [],
            }
            for name, keys in compared.items():
                if keys and keys[0] in values_of and values_of[keys[0]].keys() == values.keys():
                    entry[name] = _difference(values, values_of[keys[0]], column) | {"row": keys[0]}
            found[row.key][column.key] = entry
            values_of[row.key] = values
            models += [] if row.choice else [row.key]
    return found


def _estimate(values: Values, column: Column) -> dict[str, Any]:
    above, below = zip(*values.values(), strict=True)
    return (stats.ratio(above, below) if column.kind == "held-out" else stats.interval(above)).to_dict()


def _difference(values: Values, others: Values, column: Column) -> dict[str, Any]:
    above, below = zip(*values.values(), strict=True)
    theirs = [others[unit][0] for unit in values]
    if column.kind == "held-out":
        return stats.ratio_difference(above, theirs, below).to_dict()
    return stats.difference(above, theirs).to_dict()


def _mean(runs: Sequence[Values]) -> tuple[Values, int]:
    """Return the means over seeds of the units that all finished seeds have, and the number of these seeds."""
    done = [values for values in runs if values]
    if not done:
        return {}, 0
    units = [unit for unit in done[0] if all(unit in values for values in done)]
    return {unit: (sum(values[unit][0] for values in done) / len(done), done[0][unit][1]) for unit in units}, len(done)


def _read(setup: Setup, row: Row, column: Column) -> list[Values]:
    """Return the values of each seed; {} for one that is not finished."""
    if row.choice in (_REFINED, _EQUAL_TOKENS):
        return [_refined(setup, f"refine-{name}", row.choice, column) for name in row.names]
    if row.choice:
        return [_chosen(setup.scratch, name, row.choice, column) for name in row.names]
    names = [resolved(setup.scratch, name) for name in row.names]
    if column.kind == "held-out":
        return [_held_out(setup.scratch, name, column) for name in names]
    if column.kind == "ends":
        return [_ends(setup.scratch, name, column.task) for name in names]
    return [_scores(setup.scratch, name, column) for name in names]


def resolved(scratch: Path, name: str) -> str:
    """Return the student that a name such as `best-0` stands for; "" before the choice."""
    if not name.startswith("best-"):
        return name
    choice = read(scratch / "best.json")
    return f"{choice['arm']}-{name.removeprefix('best-')}" if choice else ""


def read(path: Path) -> dict[str, Any]:
    """Return a JSON object; {} if the file is missing."""
    value: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return value


def _scores(scratch: Path, name: str, column: Column) -> Values:
    """Return pass@k of each problem. Problems that this machine failed to execute are left out."""
    tasks: Mapping[str, list[dict[str, Any]]] = read(
        scratch / "scores" / f"{name}-{column.task}-{column.kind}.json"
    ).get("tasks", {})
    sound = {task: verdicts for task, verdicts in tasks.items() if not _failed(verdicts) and len(verdicts) >= column.k}
    return {
        task: (stats.pass_at_k(len(verdicts), sum(bool(item["passed"]) for item in verdicts), column.k), 1.0)
        for task, verdicts in sound.items()
    }


def _failed(verdicts: Sequence[Mapping[str, Any]]) -> bool:
    return any(item["outcome"] == "infra_error" for item in verdicts)


def _chosen(scratch: Path, name: str, method: str, column: Column) -> Values:
    """Return the probability that each problem's first choice is right."""
    if column.kind != "samples" or column.k != 1:
        return {}
    tasks = read(scratch / "choices" / f"{name}-{column.task}.json").get("tasks", {})
    return {task: (float(methods[method]["pass@1"]), 1.0) for task, methods in tasks.items() if method in methods}


def _refined(setup: Setup, name: str, choice: str, column: Column) -> Values:
    """Return what refinement answers, or the first passing sample where as many tokens are generated."""
    if column.kind != "greedy" or column.task not in setup.recipe.benchmarks:
        return {}
    records = read_records(refinement_plan(setup, column.task), name, column.task)
    if not records:
        return {}
    selection = setup.recipe.selection
    method = refined(records, selection.refinements, form=selection.refinement_form)
    if choice == _EQUAL_TOKENS:
        size = min(len(record.samples) for record in records)
        curve = [first_passing(records, number, greedy=True) for number in range(1, size + 2)]
        mixture = at_tokens(curve, method.total_tokens)
        if mixture is None:
            return {}
        method = mixture
    return {record.task_id: (right, 1.0) for record, right in zip(records, method.right, strict=True)}


def _ends(scratch: Path, name: str, task: str) -> Values:
    """Return whether the greedy answer to each problem ended before the limit of tokens."""
    scores = scratch / "scores" / f"{name}-{task}-greedy.json"
    if not scores.exists():  # the answers are not complete
        return {}
    answers = map(json.loads, scores.with_suffix(".samples.jsonl").read_text(encoding="utf-8").splitlines())
    return {answer["task_id"]: (float(answer["stop_reason"] != "length"), 1.0) for answer in answers}


def _held_out(scratch: Path, name: str, column: Column) -> Values:
    """Return numerator and denominator of a measure for each held-out document."""
    record = read(scratch / "held_out" / f"{name}-{column.task}.json")
    if not record or column.measure not in record["models"][0]["measures"]:
        return {}
    _, numerator, denominator = MEASURES[column.measure]
    scale = 1 / NATS if column.measure == "bits_per_byte" else 1.0
    values: Values = {}
    for row in record["rows"]:
        above, below = values.get(row["document"], (0.0, 0.0))
        values[row["document"]] = (above + scale * _first(row[numerator]), below + _first(row[denominator]))
    return values


def _first(value: Any) -> float:
    """Return the value of the first model of a comparison."""
    return float(value[0] if isinstance(value, list) else value)

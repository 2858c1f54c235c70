"""The page, the JSON file and the picture of the experiment, from the files that its stages left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.responses.plan import ARMS, BENCHMARKS, SAME, Plan
from evalkit.scoring import stats

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
"""What is written of the page; the text before it is by hand."""
MEASURES = {
    "bits_per_byte": ("bits per byte", "nll_sum", "bytes", 1 / 0.6931471805599453),
    "chunk_kl": ("chunk KL", "chunk_kl_sum", "chunks", 1.0),
    "cell_kl": ("cell KL", "cell_kl_sum", "boundaries", 1.0),
    "kl": ("KL", "kl_sum", "tokens", 1.0),
}
"""Title, numerator, denominator and factor of each held-out measure."""
TITLES = {
    "base": "student as it is",
    "teacher": "teacher",
    "sft": "SFT on responses",
    "kd": "KD on responses",
    "kd-passed": "KD on passing responses",
    "on-policy": "KD, then one on-policy round",
    "same-sft": "SFT",
    "same-kd": "KD",
}


def write(plan: Plan, out: Path) -> None:
    """Write the figures into the page, and the JSON file."""
    found = collect(plan)
    _common.write_json(out.with_suffix(".json"), found)
    if not out.exists():
        _common.write_page(out, f"{BEGIN}\n{END}\n")
    _common.replace_section(out, text(plan, found), begin=BEGIN, end=END)


def collect(plan: Plan) -> dict[str, Any]:
    """Return all figures that the finished stages allow."""
    names = ["base", *ARMS, "teacher"]
    return {
        "provenance": _marks(plan),
        "data": {name: _cache(plan, name) for name in ("cache", "passed", "same")},
        "scores": {name: _scores(plan, name) for name in names},
        "ends": {name: _ends(plan, name) for name in names},
        "held_out": {name: _held_out(plan, name, against="sft") for name in ("base", *ARMS)},
        "same": {name: _held_out(plan, name, against="same-sft") for name in SAME},
    }


def _student(name: str, seed: int) -> str:
    """Return the name of an arm's student; models without training have one for all seeds."""
    return name if name in ("base", "teacher") else f"{name}-{seed}"


def _seeded(plan: Plan, name: str) -> list[str]:
    """Return the names of the students of an arm."""
    return list(dict.fromkeys(_student(name, seed) for seed in plan.seeds))


def _scores(plan: Plan, name: str) -> dict[str, Any]:
    """Return pass@k with intervals, and paired differences to the untouched student; means over seeds."""
    found: dict[str, Any] = {}
    for task in BENCHMARKS:
        for kind, metrics in (("greedy", (1,)), ("samples", (1, 10))):
            values = [_rates(plan, student, task, kind) for student in _seeded(plan, name)]
            base = _rates(plan, "base", task, kind)
            done = [value for value in values if value]
            for k in metrics:
                if not done or any(k not in value for value in done):
                    continue
                mean = _mean([value[k] for value in done])
                entry: dict[str, Any] = {"seeds": len(done), **stats.interval(mean).to_dict()}
                if name != "base" and base:
                    entry["minus base"] = stats.difference(mean, base[k]).to_dict()
                found[f"{task} {kind} pass@{k}"] = entry
    return found


def _rates(plan: Plan, student: str, task: str, kind: str) -> dict[int, list[float]]:
    """Return pass@k of each problem by k; {} where the score is missing."""
    try:
        result = json.loads((plan.scratch / "scores" / f"{student}-{task}-{kind}.json").read_bytes())
    except OSError:
        return {}
    verdicts = [[bool(verdict["passed"]) for verdict in task] for task in result["tasks"].values()]
    return {
        k: [stats.pass_at_k(len(passed), sum(passed), k) for passed in verdicts]
        for k in (1, 10)
        if all(len(passed) >= k for passed in verdicts)
    }


def _mean(values: Sequence[list[float]]) -> list[float]:
    return [sum(column) / len(values) for column in zip(*values, strict=True)]


def _ends(plan: Plan, name: str) -> dict[str, Any]:
    """Return the share of answers that end by themselves, over prompts and seeds."""
    ended: list[float] = []
    for student in _seeded(plan, name):
        path = plan.scratch / "ends" / student / "responses.jsonl"
        if path.exists():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            ended += [float(row["finish_reason"] == "stop") for row in rows]
    return stats.interval(ended).to_dict() | {"answers": len(ended)} if ended else {}


def _held_out(plan: Plan, name: str, *, against: str) -> dict[str, Any]:
    """Return held-out measures with intervals over prompts, and paired differences to `against`; means over seeds."""
    runs = {seed: _rows(plan, _student(name, seed)) for seed in plan.seeds}
    others = {seed: _rows(plan, _student(against, seed)) for seed in plan.seeds}
    seeds = [seed for seed, rows in runs.items() if rows]
    found: dict[str, Any] = {"seeds": len({_student(name, seed) for seed in seeds})}
    for measure, (_, above, below, factor) in MEASURES.items():
        if not seeds or not all(any(row.get(below) for row in runs[seed].values()) for seed in seeds):
            continue
        if measure == "kl" and "chunk_kl" in found:  # another tokenizer: there is no KL per token
            continue
        keys = sorted(runs[seeds[0]])
        tops = _mean([[factor * runs[seed][key].get(above, 0.0) for key in keys] for seed in seeds])
        bottoms = [float(runs[seeds[0]][key].get(below, 0)) for key in keys]
        found[measure] = stats.ratio(tops, bottoms).to_dict()
        paired = [seed for seed in seeds if others.get(seed) and sorted(others[seed]) == keys]
        if name != against and paired == seeds:
            theirs = _mean([[factor * others[seed][key].get(above, 0.0) for key in keys] for seed in seeds])
            found[measure][f"minus {against}"] = stats.ratio_difference(tops, theirs, bottoms).to_dict()
    return found


def _rows(plan: Plan, student: str) -> dict[str, dict[str, float]]:
    """Return the sums of each held-out prompt; {} where they are missing.

    They are of the comparison on the teacher's responses. The control with one tokenizer has those of its own runs.
    """
    compared = plan.scratch / "held_out" / f"{student}.json"
    trained = plan.scratch / "runs" / student / "held_out.jsonl"
    if compared.exists():
        rows = [_of_first_model(row) for row in json.loads(compared.read_bytes())["rows"]]
    elif student.startswith(SAME) and trained.exists():
        rows = [json.loads(line) for line in trained.read_text().splitlines()]
    else:
        return {}
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        own = sums.setdefault(row["document"], {})
        for key, value in row.items():
            if isinstance(value, int | float) and key != "window":
                own[key] = own.get(key, 0.0) + value
    return sums


def _of_first_model(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a comparison with one value for each sum."""
    return {key: value[0] if isinstance(value, list) else value for key, value in row.items()}


def _cache(plan: Plan, name: str) -> dict[str, Any]:
    """Return rows, response tokens and bytes of a cache; {} where it is missing."""
    folder = plan.scratch / name
    if not (folder / "manifest.json").exists():
        return {}
    import shards

    cache = shards.open(str(folder))
    chunks = [cache[i] for i in range(len(cache))]
    positions = sum(len(chunk.label_logp) for chunk in chunks)
    size = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    return {"rows": sum(len(chunk.rows) for chunk in chunks), "response tokens": positions, "bytes": size}


def _marks(plan: Plan) -> list[str]:
    """Return where the stages ran."""
    marks = (json.loads(path.read_bytes()) for path in sorted((plan.scratch / "marks").glob("*.json")))
    return sorted({mark["provenance"] for mark in marks})


def text(plan: Plan, found: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    lines = [
        "Teacher: Qwen2.5-Coder-0.5B-Instruct. Student: SmolLM2-135M-Instruct, which has another tokenizer and another",
        f"chat template. Prompts: `mbpp:train`, {plan.samples} responses each, and functions of the corpus, 2",
        f"each. {plan.steps} steps of {plan.batch_tokens:,} tokens, peak learning rate {plan.learning_rate:g}, seeds",
        f"{', '.join(map(str, plan.seeds))}. Written by",
        "",
        "    python -m benchmarks.responses --scratch DIR --teacher QWEN_FOLDER --mbpp mbpp.jsonl --corpus FOLDER \\",
        f"        --samples {plan.samples} --functions {plan.functions} --steps {plan.steps} --limit {plan.limit} \\",
        f"        --sampled-limit {plan.sampled_limit} --prompts {plan.prompts} \\",
        f"        --batch-tokens {plan.batch_tokens} --learning-rate {plan.learning_rate:g}",
        "",
        *(f"- {line}" for line in found["provenance"]),
        "",
        "### Data",
        "",
        _data_table(found["data"]),
        "",
        "### Benchmarks",
        "",
        "Percent of problems; in brackets 95 % intervals over problems. `- base`: paired difference to the untouched",
        "student, means over seeds. pass@1 greedy; pass@10 from 10 samples at temperature 0.8."
        + (f" The first {plan.limit} problems of each benchmark" if plan.limit else "")
        + (f", {plan.sampled_limit} for pass@10." if plan.sampled_limit else "."),
        "",
        _score_table(found),
        "",
        "Cells without a figure are not run yet.",
        "",
        "### Held-out prompts",
        "",
        "On the teacher's responses to prompts that no student is trained on, by `student-train --evaluate`; 95 %",
        "intervals over prompts. `- sft`: paired difference to SFT on the same prompts.",
        "",
        _held_out_table(found["held_out"], "sft"),
        "",
        "### One tokenizer",
        "",
        "SmolLM2-135M-Instruct writes and records; a copy with 24 of its 30 layers learns from it.",
        "",
        _held_out_table(found["same"], "same-sft"),
    ]
    return "\n".join(lines)


def _data_table(data: dict[str, Any]) -> str:
    names = {"cache": "all responses", "passed": "MBPP, passing", "same": "the student's base, for one tokenizer"}
    rows = [
        (names[name], f"{facts['rows']:,}", f"{facts['response tokens']:,}", f"{facts['bytes'] / 1e6:.1f}")
        for name, facts in data.items()
        if facts
    ]
    return _common.markdown_table(("cache", "responses", "response tokens", "MB"), rows)


def _score_table(found: dict[str, Any]) -> str:
    columns = [f"{task} {kind}" for task in BENCHMARKS for kind in ("greedy pass@1", "samples pass@10")]
    header = ["model"]
    for column in columns:
        header += [column.replace("samples ", ""), "- base"]
    rows = []
    for name, scores in found["scores"].items():
        cells = [TITLES[name]]
        for column in columns:
            entry = scores.get(column)
            cells.append(_percent(entry) if entry else "")
            cells.append(_percent(entry["minus base"], sign="+") if entry and "minus base" in entry else "")
        ends = found["ends"].get(name)
        rows.append((*cells, _percent(ends) if ends else ""))
    return _common.markdown_table((*header, "answers that end"), rows)


def _percent(entry: dict[str, Any], sign: str = "") -> str:
    low, high = (f"{100 * entry[key]:{sign}.1f}" for key in ("low", "high"))
    return f"{100 * entry['mean']:{sign}.1f} [{low}, {high}]"


def _held_out_table(arms: dict[str, Any], against: str) -> str:
    measures = [m for m in MEASURES if any(m in entry for entry in arms.values())]
    header = ["arm", "seeds"]
    for measure in measures:
        header += [MEASURES[measure][0], f"- {against.removeprefix('same-')}"]
    rows = []
    for name, entry in arms.items():
        cells = [TITLES[name], str(entry["seeds"]) if name in (*ARMS, *SAME) else ""]
        for measure in measures:
            value = entry.get(measure)
            cells.append(_number(value) if value else "")
            change = value.get(f"minus {against}") if value else None
            cells.append(_number(change, sign="+") if change else "")
        rows.append(cells)
    return _common.markdown_table(header, rows)


def _number(entry: dict[str, Any], sign: str = "") -> str:
    return f"{entry['mean']:{sign}.4f} [{entry['low']:{sign}.4f}, {entry['high']:{sign}.4f}]"

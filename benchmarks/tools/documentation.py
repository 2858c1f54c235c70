"""Documentation on `private-api`: stages, and the tables of their results.

The forms are one benchmark with one prompt: without documentation, with the entries that a search finds put into the
prompt, with the right entries put there, and with a search that the model calls itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks._stages import Stage
from benchmarks.tools.plan import Plan
from benchmarks.tools.report import TITLES, value_text
from evalkit.scoring.stats import Estimate, difference, interval
from evalkit.tasks.registry import load
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.recall import measure_recall
from evalkit.tools.docs.retrieval import query_of

TASK, PROTOCOL = "private-api", "private-api-chat-v1"
FORMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "retrieved": ("--docs-top-k", "3"),
    "oracle": ("--docs-oracle",),
    "inline": ("--tools", "docs"),
}
"""Options of each form, apart from `--docs`."""
FORM_TITLES = {
    "none": "no documentation",
    "retrieved": "3 entries that the search finds",
    "oracle": "the right entries",
    "inline": "a search that the model calls",
}


BEGIN, END = "<!-- documentation: begin -->", "<!-- documentation: end -->"


def stages(plan: Plan) -> list[Stage]:
    """Return the stages: build, index, and a score for each model and form."""
    library, index = str(plan.scratch / TASK / "library"), str(plan.scratch / TASK / "docs.db")
    build = Stage(name=f"{TASK}-build", module="evalkit", arguments=("build-private-api", "--out", library))
    indexed = Stage(
        name=f"{TASK}-index",
        module="evalkit",
        arguments=("index-docs", f"{library}/", "--out", index),
        needs=(build.name,),
    )
    scores = [_score(plan, model, form, index) for form in FORMS for model in plan.models]
    return [build, indexed, *scores]


def _score(plan: Plan, model: str, form: str, index: str) -> Stage:
    generation = (
        *("score", plan.models[model], "--tasks", TASK, "--protocol", PROTOCOL, "--engine", plan.engine),
        *("--max-new-tokens", "200", "--no-html", "--json", str(_result(plan, model, form))),
        *(("--batch-size", str(plan.batch_size)) if plan.batch_size else ()),
        *(("--limit", str(plan.limit)) if plan.limit else ()),
    )
    docs = ("--docs", index, *FORMS[form]) if FORMS[form] else ()
    return Stage(
        name=f"{model}-{TASK}-{form}",
        module="evalkit",
        arguments=(*generation, *docs),
        needs=(f"{TASK}-index",) if docs else (),
    )


def _result(plan: Plan, model: str, form: str) -> Path:
    return plan.folder(model, TASK) / f"{form}.json"


def write(plan: Plan, out: Path) -> None:
    """Replace the tables about documentation in the page by those of the finished stages."""
    found = {model: results for model in plan.models if (results := read_results(plan, model))}
    if not found:
        return
    values = {model: tables(results) for model, results in found.items()}
    page, data = out / "tools.md", out / "tools.json"
    old = json.loads(data.read_bytes()) if data.exists() else {}
    recall = measured_recall(plan)
    record = {"documentation": values, "documentation_recall": recall, "documentation_where": _common.provenance()}
    _common.write_json(data, old | record)
    parts = [recall_line(recall)]
    parts += [section(TITLES.get(model, model), value) for model, value in values.items()]
    _common.replace_section(page, "\n\n".join(parts), begin=BEGIN, end=END)


def read_results(plan: Plan, model: str) -> dict[str, dict[str, Any]]:
    """Return the results of a model's finished forms."""
    results = {}
    for form in FORMS:
        path = _result(plan, model, form)
        if path.is_file():
            result = json.loads(path.read_bytes())
            with path.with_suffix(".samples.jsonl").open(encoding="utf-8") as lines:
                samples = [json.loads(line) for line in lines]
            tokens = sum(sample["tokens"] for sample in samples if sample["task_id"] in result["tasks"])
            results[form] = result | {"tokens": tokens}
    return results


def tables(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one model, by form."""
    passed = {form: _passed(result) for form, result in results.items()}
    forms: dict[str, Any] = {}
    for form, result in results.items():
        forms[form] = {
            "problems": len(passed[form]),
            "tokens": result["tokens"] / len(passed[form]),
            "pass@1": _percent(interval(list(passed[form].values()))),
            **{key: result["library"][TASK][key] for key in ("used", "passed", "passed_and_used")},
        }
        common = [task for task in passed[form] if task in passed.get("none", {})]
        if form != "none" and common:
            values = [[passed[name][task] for task in common] for name in (form, "none")]
            forms[form]["over none"] = _percent(difference(*values))
    data = next(iter(results.values()))["data"][TASK]
    return {"forms": forms, "data": data}


def section(title: str, values: dict[str, Any]) -> str:
    """Return the text of one model."""
    rows = [
        [
            FORM_TITLES[form],
            str(row["problems"]),
            value_text(row["pass@1"]),
            value_text(row["over none"], sign=True) if "over none" in row else "-",
            f"{row['passed_and_used']} of {row['passed']}",
            str(row["used"]),
            f"{row['tokens']:.0f}",
        ]
        for form, row in values["forms"].items()
    ]
    header = [
        "documentation",
        "problems",
        "pass@1, %",
        "over none",
        "use the library, of those that pass",
        "of all",
        "tokens",
    ]
    return f"### {title}\n\n{_common.markdown_table(header, rows)}"


def measured_recall(plan: Plan) -> dict[str, Any]:
    """Return the recall of the search over all problems, and what they were built from."""
    benchmark = load(TASK)
    with DocsIndex.open(plan.scratch / TASK / "docs.db") as index:
        recall = measure_recall(
            benchmark.problems, lambda problem, limit: [hit.name for hit in index.search(query_of(problem), limit)]
        )
    assert recall is not None
    return recall.to_dict() | benchmark.to_dict()


def recall_line(recall: dict[str, Any]) -> str:
    """Return the recall of the search as a sentence."""
    shares = ", ".join(f"{key} {100 * share:.1f} %" for key, share in recall.items() if key.startswith("recall"))
    return (
        f"Search with the task and its example as the query: {shares} of the {recall['pages']} entries that the "
        f"references of all {recall['problems']} problems use ({recall['source']}, sha256 {recall['sha256'][:12]}..)."
    )


def _passed(result: dict[str, Any]) -> dict[str, float]:
    return {task: float(verdicts[0]["passed"]) for task, verdicts in result["tasks"].items()}


def _percent(value: Estimate) -> dict[str, float]:
    return {key: round(100 * number, 2) for key, number in asdict(value).items() if key in ("mean", "low", "high")}

"""The page docs/results/selection.md, its JSON file and its pictures, from the tables of all datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.selection import development, pictures
from benchmarks.selection.cells import TITLES, cell, signed, title
from benchmarks.selection.datasets import SCORED
from benchmarks.selection.measure import BY_OUTPUT, COMPARED
from benchmarks.selection.verifier_tables import head_tables, read_heads, read_verifiers, verifier_tables
from evalkit.rerank.registry import ORACLE, VERIFIER

ORDER = (
    "random",
    "greedy",
    "majority",
    "majority-valid",
    "max-pass",
    "codet",
    "srank",
    "srank-unweighted",
    "srank-all",
)
"""The first rows of a table of methods; others follow in the order of the results, `oracle` last."""
BEGIN, END = "<!-- selection: begin -->", "<!-- selection: end -->"

Result = dict[str, Any]


def write(results: Sequence[Result], scratch: Path, out: Path) -> None:
    """Write the page, pictures and data.

    Args:
        results: Tables of the finished datasets.
        scratch: Folder of the verifiers.
        out: Folder of the files `selection.*`.
    """
    scored = [result for result in results if result["task"] in SCORED and "methods" in result]
    developed = [result for result in results if "values" in result]
    chosen = _development(developed)
    verifiers = read_verifiers(dict.fromkeys(result["model"] for result in results), scratch)
    public = [{key: value for key, value in result.items() if key != "values"} for result in results]
    heads = read_heads(dict.fromkeys(result["model"] for result in results), scratch)
    data = {"datasets": public, "development": chosen, "verifiers": verifiers, "heads": heads}
    _common.write_json(out / "selection.json", data)
    if scored:
        pictures.methods(scored, out / "selection.png", title)
    if by_size := [result for result in scored if "samples" in result]:
        pictures.samples(by_size, out / "selection_samples.png", title)
    _common.write_page(
        out / "selection.md",
        "\n".join(_page(scored, developed, chosen, verifiers=verifiers, heads=heads, path=out / "selection.md")),
    )


def _page(
    scored: Sequence[Result],
    developed: Sequence[Result],
    chosen: Result,
    *,
    verifiers: Result,
    heads: Result,
    path: Path,
) -> list[str]:
    """Return the page's blocks. What a person wrote between the markers of the old page stays."""
    parts = ["# Choosing among samples: results", "", *_kept(path), ""]
    if scored:
        parts += ["![pass@1 of each method](selection.png)", ""]
    parts += ["## Methods", "", METHODS.strip(), ""]
    for result in scored:
        parts += [f"### {title(result)}", "", _setting(result), "", *_methods(result), ""]
    parts += ["## Where a method loses or gains", "", LOSSES.strip(), "", *_verdicts(scored), ""]
    parts += ["## Number of samples", "", SAMPLES.strip(), ""]
    if any("samples" in result for result in scored):
        parts += ["![pass@1 by number of samples](selection_samples.png)", ""]
    parts += _sizes(scored, "samples", (*COMPARED, VERIFIER, ORACLE))
    parts += ["## Number of texts of tests", "", TEXTS.strip(), "", *_sizes(scored, "texts", (*COMPARED, VERIFIER))]
    if any("sources" in result for result in scored):
        parts += ["## Sources of inputs", "", SOURCES.strip(), "", *_sources(scored)]
    if verifiers:
        parts += ["## Verifier", "", VERIFIERS.strip(), "", *verifier_tables(verifiers, scored), ""]
    if heads:
        parts += ["### With a model's embeddings", "", HEADS.strip(), "", *head_tables(heads)]
    parts += ["## Choice of `combined`", "", CHOICE.strip(), "", *_variants(developed, chosen), ""]
    where = sorted({result["where"] for result in (*scored, *developed)})
    return [*parts, "## Where", "", *where, ""]


METHODS = """
pass@k in percent of problems with 95% bootstrap intervals over problems, and paired differences in pass@1 to `random`
and to `majority` in points. [selection.md](../selection.md) describes the methods. A row says *visible tests* where the
method uses tests that the prompt shows. `greedy` is one sample at temperature 0; `oracle` is any of the samples.
"""
LOSSES = """
Paired differences in pass@1 to `majority` whose 95% interval excludes 0. Methods that are not listed cannot be told
from `majority` on these problems.
"""
SAMPLES = """
pass@1 by the number of samples. For each problem it is the mean over five random subsets of its samples. The tests are
all tests.
"""
TEXTS = """
pass@1 by the number of generated texts of tests, at all samples. Fewer texts also give fewer inputs. For each problem
it is the mean over five random subsets of its texts.
"""
SOURCES = """
Inputs and the clusters of equal outputs that they separate, per problem, and pass@1 of the methods that compare
outputs. `tests` are the calls of the model-written tests, `examples` those that the prompt shows, `mutation` changed
calls of both. Where a source has no input for a problem, the methods pick at random.
"""
CHOICE = """
`combined` was chosen on MBPP's train and validation tasks, which no table above scores. Each row changes one part of
it. Differences in pass@1 are paired, in points.
"""


VERIFIERS = """
Verifiers are trained by `evalkit train-verifier` on samples and tests of mbpp:train. Its kind was chosen on
mbpp:validation, on which the next table measures it. AUC is the probability that a right sample has a larger
probability than a wrong one, over all samples and within a task. The Brier score is the mean squared error of the
probability; in brackets, that of a constant. A choice is wrong if the first sample fails although some sample passes.
A model without samples of mbpp:train has the verifier of the other model.
"""
HEADS = """
Both verifiers learn from the same fixed random part of mbpp:train and are measured on the same part of mbpp:validation,
on which their kinds were chosen. The second one has a linear head that also reads SmolLM2-135M-Instruct's embeddings of
the programs (`train-verifier --model`). The time is that of the command on a busy machine, without the execution of the
programs.

    python -m benchmarks.selection.heads --data DATA --scratch DIR --checkpoint CHECKPOINT --part 8 --samples 5
"""


def _kept(path: Path) -> list[str]:
    """Return the section between the markers of the page as it is."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, _, rest = text.partition(f"{BEGIN}\n")
    inner, found, _ = rest.partition(f"\n{END}")
    return [BEGIN, inner if found else "", END]


def _setting(result: Result) -> str:
    facts = result["facts"]
    numbers = facts["samples_per_problem"]
    samples = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    texts = f"{facts['texts_of_tests'] / facts['problems']:.0f}"
    shown = "shows" if facts["prompt_shows_tests"] else "does not show"
    correct = "-" if facts["correct_tests"] is None else f"{100 * facts['correct_tests']:.0f}%"
    return (
        f"{facts['problems']} problems, {samples} samples and {texts} texts of tests each; "
        f"{facts['distinct_programs']:,} distinct programs, {facts['calls']:,} calls, {facts['tests']:,} "
        f"distinct tests. Right programs pass {correct} of the written tests. Problems "
        f"without a valid test: {facts['tasks_without_tests']}. The prompt {shown} tests."
    )


def _methods(result: Result) -> list[str]:
    table = result["methods"]
    metrics = list(table["random"])
    names = [name for name in ORDER if name in table]
    names += [name for name in table if name not in (*ORDER, ORACLE)] + [ORACLE]
    header = ["method", *(f"{metric}" for metric in metrics), "over `random`", "over `majority`"]
    rows = []
    for name in names:
        label = f"`{name}`" + (" (visible tests)" if name in result["facts"]["visible_tests"] else "")
        first = table[name]["pass@1"]
        cells = [cell(table[name].get(metric)) for metric in metrics]
        rows.append([label, *cells, signed(first.get("over random")), signed(first.get("over majority"))])
    return _common.markdown_table(header, rows).splitlines()


def _verdicts(scored: Sequence[Result]) -> list[str]:
    """Return a line for each dataset: methods that are below, and above, `majority` by their interval."""
    lines = []
    for result in scored:
        differences = {
            name: row["pass@1"]["over majority"]
            for name, row in result["methods"].items()
            if "over majority" in row["pass@1"] and name != ORACLE
        }
        below = [f"`{name}` ({signed(value)})" for name, value in differences.items() if value["high"] < 0]
        above = [f"`{name}` ({signed(value)})" for name, value in differences.items() if value["low"] > 0]
        lines.append(
            f"- {title(result)}: below `majority`: {', '.join(below) or 'none'}; above: {', '.join(above) or 'none'}."
        )
    return lines


def _sizes(scored: Sequence[Result], key: str, methods: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for result in scored:
        table = result.get(key)
        if table:
            rows = [
                [f"`{name}`", *(cell(by_method.get(name)) for by_method in table.values())]
                for name in methods
                if name in next(iter(table.values()))
            ]
            lines += [f"{title(result)}:", "", *_common.markdown_table([key, *table], rows).splitlines(), ""]
    return lines


def _sources(scored: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for result in (result for result in scored if "sources" in result):
        header = ["inputs from", "inputs", "clusters", "problems without", *(f"`{name}`" for name in BY_OUTPUT)]
        rows = [
            [
                sources.replace(",", ", "),
                f"{row['inputs']:.1f}",
                f"{row['clusters']:.1f}",
                str(row["problems_without"]),
                *(cell(row[name]) for name in BY_OUTPUT),
            ]
            for sources, row in result["sources"].items()
        ]
        lines += [f"{title(result)}:", "", *_common.markdown_table(header, rows).splitlines(), ""]
    return lines


def _development(developed: Sequence[Result]) -> dict[str, Any]:
    """Return the ablation of `combined` for each model, and for all models together."""
    models = list(dict.fromkeys(result["model"] for result in developed))
    tables = {
        model: development.table([result["values"] for result in developed if result["model"] == model])
        for model in models
    }
    if len(models) > 1:
        tables["all models"] = development.table([result["values"] for result in developed])
    return tables


def _variants(developed: Sequence[Result], tables: Result) -> list[str]:
    lines: list[str] = []
    for model, table in tables.items():
        problems = sum(r["facts"]["problems"] for r in developed if model in (r["model"], "all models"))
        metrics = list(table["random"])
        header = ["rules", *metrics, "over `srank`", "over `combined`"]
        rows = []
        for name, row in table.items():
            cells = [cell(row[metric]) for metric in metrics]
            first = row["pass@1"]
            label = name if name in development.VARIANTS and name != "combined" else f"`{name}`"
            rows.append([label, *cells, signed(first.get("over srank")), signed(first.get("over combined"))])
        name = TITLES.get(model, model)
        lines += [f"{name}, {problems} problems:", "", *_common.markdown_table(header, rows).splitlines(), ""]
    return lines

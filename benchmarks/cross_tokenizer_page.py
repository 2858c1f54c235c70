"""Page and figure of `benchmarks.cross_tokenizer`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks import _common

MEASURES = {
    "bits_per_byte": ("held-out bits per byte", "nll_sum", "bytes", 1 / math.log(2)),
    "chunk_kl": ("held-out chunk KL, nats", "chunk_kl_sum", "chunks", 1.0),
    "cell_kl": ("held-out cell KL, nats", "cell_kl_sum", "boundaries", 1.0),
}
"""Title, numerator, denominator and factor of each measure."""


def page(results: dict[str, Any], name: str) -> str:
    """Return the page as Markdown; `name` is that of its figure and its JSON file."""
    layers = results["student"]["layers"]
    seeds = sorted({seed for entry in results["methods"].values() for seed in entry["seeds"]})
    settings = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in results["settings"].items())
    lines = [
        f"# Across tokenizers: {results['title']}",
        "",
        f"Student: {results['student']['parameters'] / 1e6:.1f} M parameters"
        f"{f', {layers} layers of the whole model' if layers else ''}. {results['teacher tokens']:,} teacher tokens of",
        f"the standard library in the cache; {results['steps']} steps, {results['student tokens trained on']:,} student"
        f" tokens; {results['documents']} held-out",
        f"documents, {results['held-out bytes']:,} bytes. {results['machine'] + '. ' if results['machine'] else ''}"
        "Written by",
        "",
        f"    python -m benchmarks.cross_tokenizer --shards gemma-shards/ --student {results['student']['source']}/ \\",
        f"        {settings} \\",
        f"        --methods {','.join(results['methods'])} --seeds {','.join(map(str, seeds))} --runs runs/"
        f" --write docs/results/{name}",
        "",
        f"![Differences to cross-entropy only, with intervals]({name}.png)",
        "",
        "Means over seeds; in brackets 95 % intervals over documents. `- ce`: paired difference to cross-entropy only,",
        "seed by seed and document by document; below zero is better. Agreement: the share of shared boundaries at",
        "which the most likely tokens of both models lie in one cell. In the figure a stroke is a seed.",
        "",
        "| method | seeds | bits per byte | - ce | chunk KL | - ce | cell KL | - ce | agreement |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, entry in results["methods"].items():
        cells = []
        for measure in MEASURES:
            value = entry[measure]
            cells.append(f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]")
            change = value.get("minus ce")
            cells.append(f"{change['mean']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]" if change else "")
        lines.append(f"| `{method}` | {len(entry['seeds'])} | {' | '.join(cells)} | {entry['agreement']:.1%} |")
    start = next(iter(results["methods"].values()))
    before = ", ".join(f"{title} {start[measure]['before']:.4f}" for measure, (title, *_) in MEASURES.items())
    bits = results.get("teacher's bits per byte")
    lines += [
        "",
        f"Before training: {before}.",
        *([f"The teacher's own bits per byte on these rows: {bits:.4f}."] if bits else []),
        "",
        "Difference to cross-entropy only, in bits per byte, seed by seed:",
        "",
    ]
    for method, entry in results["methods"].items():
        if change := entry["bits_per_byte"].get("minus ce"):
            values = ", ".join(f"{value:+.4f}" for value in change["per seed"])
            lines.append(f"- `{method}`: {values}")
    return "\n".join([*lines, ""])


def picture(results: dict[str, Any], path: Path) -> None:
    """Plot the differences to cross-entropy only, one panel per measure."""
    from matplotlib.ticker import MaxNLocator

    methods = [method for method in results["methods"] if "minus ce" in results["methods"][method]["cell_kl"]]
    with _common.figure(path, len(MEASURES), size=(11, 3.2), share_y=True) as panels:
        for axes, (measure, (title, *_)) in zip(panels, MEASURES.items(), strict=True):
            for i, method in enumerate(methods):
                change = results["methods"][method][measure]["minus ce"]
                axes.plot([change["low"], change["high"]], [i, i], color="#4878a8")
                axes.plot(change["mean"], i, "o", color="#4878a8")
                axes.plot(change["per seed"], [i] * len(change["per seed"]), "|", color="#222222", markersize=9)
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("difference to cross-entropy only")
            axes.set_yticks(range(len(methods)), methods)
            axes.xaxis.set_major_locator(MaxNLocator(4))

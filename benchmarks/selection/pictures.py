"""Pictures of the results: pass@1 of each method, and pass@1 by number of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from evalkit.rerank.registry import ORACLE

COLOURS = {
    "random": "#6b7280",
    "majority": "#c77d0a",
    "majority-valid": "#e0b060",
    "max-pass": "#9a6fb0",
    "codet": "#4063d8",
    "srank": "#b0413e",
    "combined": "#1a7f5a",
    "verifier": "#0891b2",
    ORACLE: "#111827",
}
OTHER = "#94a3b8"


def methods(results: Sequence[dict[str, Any]], path: Path, title: Callable[[dict[str, Any]], str]) -> None:
    """Draw one panel for each dataset: methods with their intervals, the oracle as a line."""
    with _common.figure(path, len(results), size=(3.4 * len(results), 4.4), dpi=120) as axes:
        for result, panel in zip(results, np.atleast_1d(axes), strict=True):
            table = result["methods"]
            names = sorted((name for name in table if name != ORACLE), key=lambda name: table[name]["pass@1"]["mean"])
            for place, name in enumerate(names):
                value = table[name]["pass@1"]
                whiskers = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
                panel.errorbar(
                    value["mean"],
                    place,
                    xerr=whiskers,
                    fmt="o",
                    color=COLOURS.get(name, OTHER),
                    capsize=3,
                    markersize=5,
                )
            panel.axvline(table[ORACLE]["pass@1"]["mean"], color=COLOURS[ORACLE], linewidth=1, linestyle=":")
            panel.set_yticks(range(len(names)), names, fontsize=8)
            panel.set_xlabel("pass@1, %; dotted: oracle")
            panel.set_title(title(result).replace(", ", "\n").replace(" (", "\n("), fontsize=9)
            panel.grid(axis="x", alpha=0.2)
            panel.spines[["top", "right"]].set_visible(False)


def samples(results: Sequence[dict[str, Any]], path: Path, title: Callable[[dict[str, Any]], str]) -> None:
    """Draw one panel for each dataset: pass@1 of the compared methods by number of samples."""
    with _common.figure(path, len(results), size=(3.4 * len(results), 3.6), dpi=120) as axes:
        for result, panel in zip(results, np.atleast_1d(axes), strict=True):
            table = result["samples"]
            sizes = [int(size) for size in table]
            for name in table[str(sizes[0])] if sizes else ():
                means = [table[str(size)][name]["mean"] for size in sizes]
                style = ":" if name == ORACLE else "-"
                panel.plot(sizes, means, style, marker="o", markersize=3, color=COLOURS.get(name, OTHER), label=name)
            panel.set_xscale("log")
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.minorticks_off()
            panel.set_xlabel("samples")
            panel.set_ylabel("pass@1, %")
            panel.set_title(title(result).replace(", ", "\n").replace(" (", "\n("), fontsize=9)
            panel.grid(alpha=0.2)
            panel.spines[["top", "right"]].set_visible(False)
        np.atleast_1d(axes)[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

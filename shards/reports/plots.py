"""Plot what a cache keeps and what it costs, to judge the threshold c.

Above, if the cache was checked: captured mass and error of the estimate against bytes per token, for this cache's c
and for others, measured by the teacher on rows of this cache. Below, from the records: the distribution of captured
mass over positions, and the bytes of each field.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import ShardError
from shards.format.batch import decode_records
from shards.format.quantiser import tail_table
from shards.format.schema import UNIT
from shards.read import Cache
from shards.reports.statistics import sampled_chunks, tail_counts

_INK, _LINE, _MUTED, _OURS = "#374151", "#e5e7eb", "#6b7280", "#1a7f5a"

_Panel = tuple[str, Callable[[Any], None]]
"""Title of a panel, and the function that draws it on axes."""


def plot_cache(cache: Cache, check: dict[str, Any] | None, path: Path) -> None:
    """Write the plots of a cache.

    Args:
        cache: The cache.
        check: The result of its last check.
        path: File to write, .svg or .png.

    Raises:
        ShardError: If the file has another ending, the cache has no report, or matplotlib is not installed.
    """
    if path.suffix not in (".svg", ".png"):
        raise ShardError(f"--picture {path}: found the ending {path.suffix!r}, expected .svg or .png")
    if "bytes_by_field" not in cache.manifest.report:
        raise ShardError(f"{cache.store.root}: found no facts about its bytes in the manifest, expected a newer cache")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ShardError("--picture: matplotlib is not installed; run pip install 'teacherless[pictures]'") from None

    rows = _panels(cache, check)
    # A fixed salt, so that the same cache always gives the same bytes.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "shards", "font.size": 9}
    with rc_context(settings):
        figure = Figure(figsize=(10.5, 3.6 * len(rows)), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
        FigureCanvasAgg(figure)
        for i, row in enumerate(rows):
            for j, (title, draw) in enumerate(row):
                axes = figure.add_subplot(len(rows), 2, 2 * i + j + 1)
                _style(axes, title)
                draw(axes)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=140, metadata=metadata)


def _panels(cache: Cache, check: dict[str, Any] | None) -> list[list[_Panel]]:
    """Return the panels by row."""
    rows: list[list[_Panel]] = []
    if check is not None and "curve" in check:
        points, own = check["curve"], cache.manifest.layout.threshold
        rows.append(
            [
                ("Captured mass: more bytes, more by name", partial(_curve, points=points, own=own, key="captured")),
                ("Error of the estimate: more bytes, less noise", partial(_curve, points=points, own=own, key="rms")),
            ]
        )
    rows.append(
        [
            ("How much of each position is captured", partial(_spread, tails=_sampled_tails(cache))),
            ("Where the bytes go", partial(_fields, sizes=cache.manifest.report["bytes_by_field"])),
        ]
    )
    return rows


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=10, fontweight="bold")
    axes.tick_params(colors=_INK, length=0)
    axes.grid(True, color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _sampled_tails(cache: Cache) -> Any:
    """Return int64 [256]: the number of positions with each tail code in some chunks, evenly spaced."""
    total = np.zeros(256, np.int64)
    for i in sorted(sampled_chunks(cache)):
        where, entry, raw = cache.chunk_bytes(i)
        total += tail_counts(decode_records(cache.manifest.layout, raw, where=where, entry=entry))
    return total


def _curve(axes: Any, *, points: list[dict[str, Any]], own: float, key: str) -> None:
    bytes_per_token = [p["bytes_per_token"] for p in points]
    values = [p[key] for p in points]
    axes.plot(bytes_per_token, values, color=_OURS, linewidth=1.4, marker="o", markersize=5, markerfacecolor="white")
    for point, x, y in zip(points, bytes_per_token, values, strict=True):
        is_own = abs(point["threshold"] - own) < 1e-3 * own
        if is_own:
            axes.plot([x], [y], "o", color=_OURS, markersize=8)
        below = key == "captured"
        axes.annotate(
            f"c = {point['threshold']:g}" + (" (this cache)" if is_own else ""),
            (x, y),
            (7, -11 if below else 6),
            textcoords="offset points",
            color=_INK if is_own else _MUTED,
            fontweight="bold" if is_own else "normal",
            fontsize=8.5,
        )
    axes.set_xlabel("bytes per token", color=_INK)
    axes.margins(y=0.15)
    axes.set_xlim(0, 1.25 * max(bytes_per_token))
    if key == "captured":
        axes.locator_params(axis="y", steps=[1, 2, 5, 10])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_ylabel("mean mass kept id by id", color=_INK)
    else:
        axes.set_ylim(bottom=0)
        axes.set_ylabel("relative RMS error, unbiased", color=_INK)


def _spread(axes: Any, tails: Any) -> None:
    mass = 1 - tail_table()[::-1].astype(np.float64) / UNIT
    share = np.cumsum(tails[::-1]) / tails.sum()
    axes.fill_between(mass, share, step="post", color=_OURS, alpha=0.15, linewidth=0)
    axes.step(mass, share, where="post", color=_OURS, linewidth=1.6)
    mean = float((mass * tails[::-1]).sum() / tails.sum())
    axes.axvline(mean, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.annotate(
        f"mean {mean:.0%}", (mean, 0.96), (-5, 0), textcoords="offset points", ha="right", color=_MUTED, fontsize=8.5
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("mass kept id by id", color=_INK)
    axes.set_ylabel("share of positions with less", color=_INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _fields(axes: Any, sizes: dict[str, float]) -> None:
    names = list(sizes)[::-1]
    axes.barh(names, [sizes[n] for n in names], color=_OURS, alpha=0.8, height=0.62)
    for i, name in enumerate(names):
        axes.annotate(
            f"{sizes[name]:.1f}", (sizes[name], i), (4, 0), textcoords="offset points", va="center", color=_INK
        )
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"bytes per token ({sum(sizes.values()):.1f} in all)", color=_INK)

"""How did training go? Loss curves and held-out measures as one SVG, to be put into a page.

Drawn without a display and without pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

from evalkit.reports.run_dir import Run

_COLOURS = {"distilled": "#2563eb", "control": "#d97706", "trained": "#2563eb", "before": "#6b7280"}
_INK, _LINE = "#374151", "#d1d5db"


def curves(run: Run, control: Run | None) -> str:
    """Return an SVG element with the training curves and the held-out measures, or "" when there are none."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = [row for row in (_curve_panels(run, control), _measure_panels(run, control)) if row]
    if not rows:
        return ""
    # One salt, so that the same run always gives the same bytes.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "evalkit", "font.size": 9}
    with rc_context(settings):
        figure = Figure(figsize=(10.5, 3.0 * len(rows)), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1))
        FigureCanvasSVG(figure)
        for index, row in enumerate(rows):
            for column, (title, draw) in enumerate(row):
                axes = figure.add_subplot(len(rows), len(row), index * len(row) + column + 1)
                _style(axes, title)
                draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_Panel = tuple[str, Callable[[Any], None]]


def _curve_panels(run: Run, control: Run | None) -> list[_Panel]:
    panels: list[_Panel] = []
    for title, key in (
        ("cross-entropy in training, nats/token", "ce_loss"),
        ("distillation loss in training", "kd_loss"),
    ):
        lines = [_line(one, key) for one in (run, control) if one is not None]
        lines = [line for line in lines if len(line[1]) > 1]
        if lines:
            panels.append((title, partial(_draw_lines, lines=lines)))
    return panels


def _measure_panels(run: Run, control: Run | None) -> list[_Panel]:
    panels: list[_Panel] = []
    for title, key in (
        ("held-out KL to the teacher, nats/token", "kl"),
        ("held-out bits per byte", "bits_per_byte"),
    ):
        if points := _points(run, control, key):
            panels.append((title, partial(_draw_points, points=points)))
    return panels


def _line(run: Run, key: str) -> tuple[str, list[tuple[float, float]]]:
    """Return (label, [(tokens or step, value)]); a control's plain loss is its cross-entropy."""
    points = []
    for row in run.curve:
        value = row.get(key, row["loss"] if key == "ce_loss" and run.label == "control" else None)
        if value is not None:
            points.append((float(row.get("tokens", row["step"])), float(value)))
    return run.label, points


def _points(run: Run, control: Run | None, key: str) -> list[tuple[str, dict[str, float]]]:
    found = [("before", run.get("held_out", "before", key)), (run.label, run.get("held_out", "after", key))]
    if control is not None:
        found.append((control.label, control.get("held_out", "after", key)))
    return [(label, value) for label, value in found if isinstance(value, dict) and "mean" in value]


def _draw_lines(axes: Any, lines: list[tuple[str, list[tuple[float, float]]]]) -> None:
    for label, points in lines:
        places, values = zip(*points, strict=True)
        half = max(1, len(values) // 30)
        smooth = [fmean(values[max(0, place - half) : place + half + 1]) for place in range(len(values))]
        axes.plot(places, values, color=_COLOURS[label], alpha=0.25, linewidth=0.8)
        axes.plot(places, smooth, color=_COLOURS[label], linewidth=1.8, label=label)
    axes.set_xlabel("tokens trained on", color=_INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k" if value >= 1000 else f"{value:.0f}")
    axes.legend(frameon=False, labelcolor=_INK)


def _draw_points(axes: Any, points: list[tuple[str, dict[str, float]]]) -> None:
    for place, (label, value) in enumerate(reversed(points)):
        low, high = value.get("low", value["mean"]), value.get("high", value["mean"])
        axes.plot([low, high], [place, place], color=_COLOURS[label], linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot([value["mean"]], [place], "o", color=_COLOURS[label], markersize=7)
        axes.annotate(
            f"{value['mean']:.3f}", (value["mean"], place), (0, 8), textcoords="offset points", ha="center", color=_INK
        )
    axes.set_yticks(range(len(points)), [label for label, _ in reversed(points)])
    axes.set_ylim(-0.6, len(points) - 0.2)
    axes.margins(x=0.12)


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=10, fontweight="bold")
    axes.tick_params(colors=_INK, length=0)
    axes.grid(True, color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)

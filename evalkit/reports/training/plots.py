"""Plots of the pages, each as one SVG element: loss curves, held-out measures, the reliability of probabilities.

Drawn without a display and without pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from evalkit.reports.training.measures import measures_of
from evalkit.reports.training.run_dir import TrainingRun

_COLOURS = {"distilled": "#2563eb", "control": "#d97706", "trained": "#2563eb", "before": "#6b7280"}
_INK, _LINE = "#374151", "#d1d5db"

_Panel = tuple[str, Callable[[Any], None]]
"""Title of a panel, and the function that draws into its axes."""
_Points = list[tuple[float, float]]


def training_plots(run: TrainingRun, control: TrainingRun | None) -> tuple[str, ...]:
    """Return one SVG element per training curve and held-out measure; () if the run has neither."""
    runs = [run] if control is None else [run, control]
    return tuple(_svg(title, draw) for title, draw in (*_curve_panels(runs), *_measure_panels(run, control)))


def reliability_plot(bins: Sequence[tuple[float, float, int]]) -> str:
    """Return one SVG element that shows predicted against observed shares.

    Args:
        bins: Mean probability, share that is right, and number of samples of each bin; empty bins are left out.
    """
    return _svg("share of right samples by the verifier's probability", partial(_draw_reliability, bins=bins))


def _draw_reliability(axes: Any, bins: Sequence[tuple[float, float, int]]) -> None:
    """Draw a dot per bin, its area by the number of samples, beside the diagonal of a reliable verifier."""
    axes.plot([0, 1], [0, 1], color=_COLOURS["before"], linewidth=1, linestyle="--")
    total = max(1, sum(count for _, _, count in bins))
    for predicted, right, count in bins:
        if count:
            axes.scatter([predicted], [right], s=15 + 700 * count / total, color=_COLOURS["trained"], alpha=0.6)
            axes.annotate(
                f"{count:,}", (predicted, right), (0, -14), textcoords="offset points", ha="center", color=_INK
            )
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.12, 1.08)
    axes.set_xlabel("probability", color=_INK)
    axes.set_ylabel("share that is right", color=_INK)


def _svg(title: str, draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A fixed salt makes the element ids, and so the bytes, reproducible. The title keeps them apart on one page.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": f"evalkit {title}", "font.size": 9}
    with rc_context(settings):
        figure = Figure(figsize=(3.9, 2.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _style(axes, title)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # The page's own colours, which a dark page changes.
    return text[text.index("<svg") :].replace(_INK, "currentColor").replace(_LINE, "var(--line)")


def _curve_panels(runs: Sequence[TrainingRun]) -> list[_Panel]:
    panels: list[_Panel] = []
    for title, key in (
        ("cross-entropy in training, nats/token", "ce_loss"),
        ("distillation loss in training", "kd_loss"),
    ):
        lines = [(run.label, _curve(run, key)) for run in runs]
        lines = [(label, points) for label, points in lines if len(points) > 1]
        if lines:
            panels.append((title, partial(_draw_lines, lines=lines)))
    return panels


def _curve(run: TrainingRun, key: str) -> _Points:
    """Return (tokens or step, value) of a metric; the plain loss of a control is its cross-entropy."""
    points = []
    for row in run.curve:
        value = row.get(key, row["loss"] if key == "ce_loss" and run.label == "control" else None)
        if value is not None:
            points.append((float(row.get("tokens", row["step"])), float(value)))
    return points


def _measure_panels(run: TrainingRun, control: TrainingRun | None) -> list[_Panel]:
    panels: list[_Panel] = []
    for key, measure in measures_of(run).items():
        if measure.plot_title and (estimates := _estimates(run, control, key)):
            panels.append((measure.plot_title, partial(_draw_estimates, estimates=estimates)))
    return panels


def _estimates(run: TrainingRun, control: TrainingRun | None, key: str) -> list[tuple[str, dict[str, float]]]:
    """Return (label, estimate) before training, after it, and of the control."""
    pairs = [("before", run.get("held_out", "before", key)), (run.label, run.get("held_out", "after", key))]
    if control is not None:
        pairs.append((control.label, control.get("held_out", "after", key)))
    return [(label, value) for label, value in pairs if isinstance(value, dict) and "mean" in value]


def _draw_lines(axes: Any, lines: list[tuple[str, _Points]]) -> None:
    """Draw each curve, thin, and its moving average over a fifteenth of its points, thick."""
    for label, points in lines:
        positions, values = zip(*points, strict=True)
        half = max(1, len(values) // 30)
        smooth = [fmean(values[max(0, index - half) : index + half + 1]) for index in range(len(values))]
        axes.plot(positions, values, color=_COLOURS[label], alpha=0.25, linewidth=0.8)
        axes.plot(positions, smooth, color=_COLOURS[label], linewidth=1.8, label=label)
    axes.set_xlabel("tokens trained on", color=_INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k" if value >= 1000 else f"{value:.0f}")
    axes.legend(frameon=False, labelcolor=_INK)


def _draw_estimates(axes: Any, estimates: list[tuple[str, dict[str, float]]]) -> None:
    """Draw each estimate as a dot on its interval, the first at the top."""
    for height, (label, value) in enumerate(reversed(estimates)):
        low, high = value.get("low", value["mean"]), value.get("high", value["mean"])
        axes.plot([low, high], [height, height], color=_COLOURS[label], linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot([value["mean"]], [height], "o", color=_COLOURS[label], markersize=7)
        axes.annotate(
            f"{value['mean']:.3f}", (value["mean"], height), (0, 8), textcoords="offset points", ha="center", color=_INK
        )
    axes.set_yticks(range(len(estimates)), [label for label, _ in reversed(estimates)])
    axes.set_ylim(-0.6, len(estimates) - 0.2)
    axes.margins(x=0.12)


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=9, fontweight="bold")
    axes.tick_params(colors=_INK, length=0)
    axes.grid(True, color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)

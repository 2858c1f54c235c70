"""What the terminal shows: progress with rate and time left, and one table per command.

Nothing printed is read as markup or as emoji codes, and what cannot be shown is escaped: paths, details and what
models wrote may hold anything. A style is put on a `Text`.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from evalkit.text import one_line, visible
from shards.runtime.heartbeat import Heartbeat

if TYPE_CHECKING:
    from evalkit.doctor import Examination
    from evalkit.reports.comparison import Comparison
    from evalkit.reports.distillation import Report
    from evalkit.tasks.protocols import Protocol


class _Safe(Console):
    """A console that shows strings as they are, but for what is escaped."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the text to show: tables and `print` make theirs here."""
        return super().render_str(visible(text), **settings)


class Progress:
    """Notes and a progress bar on standard error; without a terminal, a line at least every fifteen seconds.

    Use as a context manager: inside, work that says nothing is heard of, too.
    """

    def __init__(self, *, heartbeat: Heartbeat | None = None) -> None:
        self._say = heartbeat or Heartbeat()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._steps = self._total = self._tokens = 0
        self._started = 0.0
        self._phase = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._say.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase.close()
        self._say.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        self._say(one_line(text))

    def start(self, what: str, total: int) -> None:
        self._steps = self._tokens = 0
        self._total = total
        self._started = time.monotonic()
        if not self._say.is_terminal:
            self._phase.enter_context(self._say.counting(self._status))
            return
        self._phase.enter_context(self._say.paused())
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=_Safe(stderr=True),
        )
        self._task = self._bar.add_task(what, total=total, rate="")
        self._bar.start()

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        if not self._tokens:
            self._started = time.monotonic()  # the rate is that of writing, without loading the model
        self._steps += steps
        self._tokens += tokens
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, rate=f"{self._rate():,.0f} tokens/s")

    def _rate(self) -> float:
        return self._tokens / max(time.monotonic() - self._started, 1e-6)

    def _status(self) -> str:
        text = f"{self._steps} of {self._total} samples"
        if not self._tokens:
            return f"{text}, loading the model and reading the first prompts, {time.monotonic() - self._started:.0f} s"
        elapsed_s = time.monotonic() - self._started
        text += f", {self._tokens:,} tokens, {self._rate():,.0f} tokens/s"
        if not self._steps:
            return f"{text}, {elapsed_s:.0f} s"
        return f"{text}, {elapsed_s / self._steps * (self._total - self._steps):.0f} s left"

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._phase.close()
        self.note(
            f"wrote {self._steps} samples, {self._tokens:,} tokens in {time.monotonic() - self._started:.0f} s "
            f"({self._rate():,.0f} tokens/s)"
        )


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def print_scores(result: dict[str, Any], path: Path, page: Path | None = None) -> None:
    """Print the scores of one result and where it lies."""
    console = _Safe()
    table = _table("benchmark", "metric", "score", "95% interval", "solved", "outcomes")
    for name, score in result["scores"].items():
        for metric, interval in score["interval"].items():
            first = metric == "pass@1"
            table.add_row(
                name if first else "",
                metric,
                f"{100 * score[metric]:.1f}%",
                f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}",
                f"{score['solved']} of {score['problems']}" if first else "",
                ", ".join(f"{count} {kind}" for kind, count in score["outcomes"].items()) if first else "",
            )
        for metric, interval in score.get("base", {}).get("interval", {}).items():
            first = metric == "pass@1"
            table.add_row(
                "  base inputs alone" if first else "",
                metric,
                f"{100 * score['base'][metric]:.1f}%",
                f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}",
                f"{score['base']['solved']} of {score['problems']}" if first else "",
            )
        if not score["interval"]:
            table.add_row(
                name, "none", "-", "-", "0 of 0", ", ".join(f"{n} {kind}" for kind, n in score["outcomes"].items())
            )
    console.print(table)
    if result["limit"]:
        console.print(f"only the first {result['limit']} problems: a quick look, not the benchmark's score")
    console.print(f"result: {one_line(str(path))}", soft_wrap=True)
    if page is not None:
        console.print(f"page:   {one_line(str(page))}", soft_wrap=True)


def print_comparisons(comparisons: list[Comparison]) -> None:
    """Print one row per pair and benchmark, and what the interval allows to say."""
    console = _Safe()
    for one in comparisons:
        console.print(f"{one.benchmark}: {one.first} against {one.second}, {one.num_problems} problems", soft_wrap=True)
        table = _table("first", "second", "difference", "95% interval", "only first", "only second", "")
        low, high = 100 * one.difference.low, 100 * one.difference.high
        table.add_row(
            f"{100 * one.first_share:.1f}%",
            f"{100 * one.second_share:.1f}%",
            f"{100 * one.difference.mean:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
            str(len(one.only_first)),
            str(len(one.only_second)),
            one.conclusion,
        )
        console.print(table)
        for remark in one.remarks:
            console.print(f"- {remark}")


def print_doctor(examination: Examination) -> bool:
    """Print the layers and trials; return whether all trials came out as they should."""
    console = _Safe()
    layers = _table("layer", "", "what it gives, or why it is off")
    for layer in examination.layers:
        layers.add_row(layer.name, Text("on", "green") if layer.on else Text("off", "red"), layer.detail)
    trials = _table("trial", "", "outcome")
    for what, verdict, fine in examination.trials:
        mark = Text("ok", "green") if fine else Text("NOT STOPPED", "red")
        trials.add_row(what, mark, f"{verdict.outcome} {verdict.detail}"[:90])
    console.print(layers, "", trials)
    return examination.sound


def print_protocols(protocols: tuple[Protocol, ...]) -> None:
    """Print every preset with every setting."""
    console = _Safe(soft_wrap=True)
    for protocol in protocols:
        console.print(Text.assemble((protocol.name, "bold"), f"  for {', '.join(protocol.tasks)}"))
        for key, value in protocol.as_dict().items():
            if key not in ("name", "tasks"):
                console.print(f"    {key:<15} {value!r}" if key == "stop" else f"    {key:<15} {value}")


def print_report(report: Report, path: Path) -> None:
    """Print one table per run, what to keep in mind, and where the HTML lies. The table fits 80 columns."""
    console = _Safe()
    for section in report.sections:
        table = _table("", title=section.title)
        for column in section.columns[1:]:
            table.add_column(column.replace(" ", "\n"), no_wrap=True)
        for row in section.rows:
            # An interval goes under its mean, and parts under each other; only the name of a row is wrapped.
            table.add_row(*(cell.replace(" [", "\n[").replace(" / ", " /\n") for cell in row))
        console.print(table)
        for remark in section.remarks:
            console.print(f"- {remark}")
    console.print(f"report: {one_line(str(path))}", soft_wrap=True)

"""Terminal output: progress with rate and remaining time, and one table per command.

Strings are printed without interpreting markup or emoji codes, and control characters are escaped, because paths,
details and model output may hold anything. Styles are applied through `Text`.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from evalkit.text import one_line, visible
from shards.runtime.bar import Bar
from shards.runtime.heartbeat import Heartbeat

if TYPE_CHECKING:
    from evalkit.doctor import Examination
    from evalkit.outputs.result import Evaluation
    from evalkit.reports.comparison import Comparison
    from evalkit.reports.training.distillation import Report
    from evalkit.rerank.run import RerankOutcome
    from evalkit.rerank.verifier.train import TrainedVerifier
    from evalkit.scoring.metrics import PassRates
    from evalkit.scoring.stats import Estimate
    from evalkit.tasks.presets import PromptProtocol

_WITHOUT_TOKENS = ("collecting", "reading")
"""First words of the phases that generate nothing."""


class _LiteralConsole(Console):
    """A console that prints strings literally, with control characters escaped."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the text to print; tables and `print` call this."""
        return super().render_str(visible(text), **settings)


class ScoreProgress:
    """Notes and a progress bar on standard error; without a terminal, a line at least every fifteen seconds.

    Use as a context manager: inside it, a heartbeat also reports work that prints nothing. Implements `ScoreCallbacks`.
    """

    def __init__(self, *, heartbeat: Heartbeat | None = None) -> None:
        self._print = heartbeat or Heartbeat()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._steps = self._total = self._tokens = 0
        self._started = 0.0
        self._what = ""
        self._phase = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._print.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()
        self._phase.close()
        self._print.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        """Print one line."""
        self._print(one_line(text))

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` samples."""
        self._steps = self._tokens = 0
        self._total = total
        self._what = what
        self._started = time.monotonic()
        if not self._print.is_terminal:
            self._phase.enter_context(self._print.counting(self._status))
            return
        self._phase.enter_context(self._print.paused())
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=_LiteralConsole(stderr=True),
        )
        self._task = self._bar.add_task(what, total=total, rate="")
        self._bar.start()

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Advance by a number of samples and generated tokens."""
        if not self._tokens and self._generates:
            self._started = time.monotonic()  # the rate excludes the loading of the model
        self._steps += steps
        self._tokens += tokens
        if self._bar is not None and self._task is not None:
            rate = f"{self._rate():,.0f} tokens/s" if self._generates else ""
            self._bar.update(self._task, advance=steps, rate=rate)

    @property
    def _generates(self) -> bool:
        """Whether the phase generates tokens; only then are tokens printed."""
        return not self._what.startswith(_WITHOUT_TOKENS)

    @property
    def _noun(self) -> str:
        return "files" if self._what.startswith("reading") else "samples"

    def _rate(self) -> float:
        return self._tokens / max(time.monotonic() - self._started, 1e-6)

    def _status(self) -> str:
        text = f"{self._steps} of {self._total} {self._noun}"
        elapsed_s = time.monotonic() - self._started
        if self._generates and not self._tokens:
            return f"{text}, loading the model and reading the first prompts, {elapsed_s:.0f} s"
        if self._generates:
            text += f", {self._tokens:,} tokens, {self._rate():,.0f} tokens/s"
        if not self._steps:
            return f"{text}, {elapsed_s:.0f} s"
        return f"{text}, {elapsed_s / self._steps * (self._total - self._steps):.0f} s left"

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def stop(self) -> None:
        """End the phase and print its totals."""
        self._end_bar()
        self._phase.close()
        if not self._generates:
            self.note(f"{self._what}: {self._steps} {self._noun} in {time.monotonic() - self._started:.0f} s")
            return
        self.note(
            f"generated {self._steps} samples, {self._tokens:,} tokens in {time.monotonic() - self._started:.0f} s "
            f"({self._rate():,.0f} tokens/s)"
        )


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def print_scores(evaluation: Evaluation, result: Path, page: Path | None = None) -> None:
    """Print the scores of an evaluation, and the paths of its result and page."""
    console = _LiteralConsole()
    table = _table("benchmark", "metric", "score", "95% interval", "solved", "outcomes")
    for benchmark in evaluation.benchmarks:
        score = benchmark.score
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in score.outcomes.items())
        _add_rates(table, benchmark.name, score.rates, score.problems, outcomes)
        if score.base_rates is not None:
            _add_rates(table, "  base inputs alone", score.base_rates, score.problems, "")
        if not score.rates.estimates:
            table.add_row(benchmark.name, "none", "-", "-", "0 of 0", outcomes)
    console.print(table)
    for benchmark in evaluation.benchmarks:
        if benchmark.choices is not None:
            from evalkit.outputs.rerank_result import choices_dict  # a plain score imports neither numpy nor pyarrow

            print_choices(benchmark.choices, choices_dict(benchmark.choices))
        if (retrieval := benchmark.plan.retrieval) is not None and "recall" in retrieval:
            shares = ", ".join(f"{value:.3f} at {key[7:]}" for key, value in _recalls(retrieval["recall"]).items())
            console.print(f"recall of the search in documentation: {shares}")
        if (use := benchmark.library_use) is not None:
            console.print(f"{use.passed_and_used} of {use.passed} samples that pass use the library {use.name}")
    if evaluation.limit:
        console.print(f"only the first {evaluation.limit} problems: this is not the benchmark's score")
    console.print(f"result: {one_line(str(result))}", soft_wrap=True)
    if page is not None:
        console.print(f"page:   {one_line(str(page))}", soft_wrap=True)


def _recalls(recall: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in recall.items() if key.startswith("recall@")}


def _add_rates(table: Table, name: str, rates: PassRates, problems: int, outcomes: str) -> None:
    """Add a row per metric; the first one names the benchmark."""
    for index, (metric, estimate) in enumerate(rates.estimates.items()):
        table.add_row(
            name if index == 0 else "",
            metric,
            f"{100 * estimate.mean:.1f}%",
            f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}",
            f"{rates.solved} of {problems}" if index == 0 else "",
            outcomes if index == 0 else "",
        )


def print_rerank(outcome: RerankOutcome, result: dict[str, Any]) -> None:
    """Print one row per method, the counts of the evidence, and the paths of all outputs.

    Args:
        outcome: What was ranked.
        result: Its JSON result.
    """
    print_choices(outcome, result)
    console, request = _LiteralConsole(), outcome.request
    if request.limit:
        console.print(f"only the first {request.limit} problems: this is not the benchmark's score")
    for label, path in (("result", request.result), ("page", request.page), ("evidence", request.evidence)):
        if path is not None:
            console.print(f"{label + ':':<9} {one_line(str(path))}", soft_wrap=True)


def print_choices(outcome: RerankOutcome, result: dict[str, Any]) -> None:
    """Print one row per method and the counts of the evidence; the arguments are those of `print_rerank`."""
    console = _LiteralConsole()
    visible_methods = result["visible_tests"]["methods"]
    metrics = list(next(iter(outcome.scores.values())).estimates)
    table = _table("method", *metrics, "pass@1 - random")
    for method, score in outcome.scores.items():
        cells = [f"{100 * score.estimates[metric].mean:.1f}" for metric in metrics[1:]]
        if metrics:
            cells.insert(0, _percent(score.estimates[metrics[0]]))
        change = score.differences.get("pass@1")
        remark = "\nvisible tests" if method in visible_methods else "\nany sample" if method == "oracle" else ""
        table.add_row(method + remark, *cells, _percent(change, sign="+") if change and method != "random" else "-")
    console.print(table)
    counts = outcome.counts
    console.print(
        f"{counts.tasks} problems, {counts.samples:,} samples, {counts.distinct_programs:,} distinct programs, "
        f"{counts.inputs:,} calls, {counts.tests:,} tests; {counts.outputs_executed:,} of {counts.outputs:,} outputs "
        f"executed in {counts.seconds:.1f} s",
        soft_wrap=True,
    )
    for source, clusters in counts.clusters_by_source.items():
        console.print(f"inputs from {source}: {counts.inputs_by_source[source]:,}, {clusters:,} clusters")


def print_verifier(trained: TrainedVerifier, paths: dict[str, Path]) -> None:
    """Print how good a verifier is on held-out tasks, and the paths of all outputs."""
    console, quality = _LiteralConsole(), trained.quality
    table = _table("method", "pass@1", "pass@1 - random")
    for method, score in quality.scores.items():
        change = _percent(score.differences["pass@1"], sign="+") if method != "random" else "-"
        table.add_row(method, _percent(score.estimates["pass@1"]), change)
    console.print(table)
    tuned = "that the model was chosen on" if trained.verifier.tuned_on.tasks else "of training, each held out once"
    lines = [
        f"trained on {len(trained.verifier.trained_on.tasks)} tasks: {trained.fitted.candidate}",
        f"measured on {quality.tasks} tasks {tuned}: {quality.samples:,} samples, {quality.right_share:.1%} right",
        f"AUC {_decimal(quality.auc)}, within a task {_decimal(quality.auc_within_tasks)}; Brier score "
        f"{quality.brier:.4f}, {quality.brier_of_share:.4f} by the share of right samples alone",
        f"first choice wrong in {quality.wrong_choices} of {quality.tasks_with_right} tasks that have a right sample",
    ]
    for line in [*lines, *(f"{label + ':':<9} {one_line(str(path))}" for label, path in paths.items())]:
        console.print(line, soft_wrap=True)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(estimate: Estimate, *, sign: str = "") -> str:
    """Return mean and interval in percent, the interval on a line of its own."""
    mean, low, high = (format(100 * value, f"{sign}.1f") for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean}\n[{low}, {high}]"


def print_comparisons(comparisons: list[Comparison]) -> None:
    """Print one row per pair and benchmark, with the conclusion that the interval supports."""
    console = _LiteralConsole()
    for pair in comparisons:
        console.print(
            f"{pair.benchmark}: {pair.first} against {pair.second}, {pair.num_problems} problems", soft_wrap=True
        )
        table = _table("first", "second", "difference", "95% interval", "only first", "only second", "conclusion")
        low, high = 100 * pair.difference.low, 100 * pair.difference.high
        table.add_row(
            f"{100 * pair.first_share:.1f}%",
            f"{100 * pair.second_share:.1f}%",
            f"{100 * pair.difference.mean:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
            str(len(pair.only_first)),
            str(len(pair.only_second)),
            pair.conclusion,
        )
        console.print(table)
        for remark in pair.remarks:
            console.print(f"- {remark}")


def print_doctor(examination: Examination) -> bool:
    """Print the sandbox layers and trials; return whether all trials ended as expected."""
    console = _LiteralConsole()
    layers = _table("layer", "state", "effect, or why it is off")
    for layer in examination.layers:
        layers.add_row(layer.name, Text("on", "green") if layer.on else Text("off", "red"), layer.detail)
    trials = _table("trial", "result", "outcome")
    for trial in examination.trials:
        mark = Text("ok", "green") if trial.as_expected else Text("NOT STOPPED", "red")
        trials.add_row(trial.name, mark, f"{trial.verdict.outcome} {trial.verdict.detail}"[:90])
    console.print(layers, "", trials)
    return examination.sound


def print_protocols(protocols: tuple[PromptProtocol, ...]) -> None:
    """Print every protocol with every setting."""
    console = _LiteralConsole(soft_wrap=True)
    for protocol in protocols:
        console.print(Text.assemble((protocol.name, "bold"), f"  for {', '.join(protocol.tasks)}"))
        for key, value in protocol.to_dict().items():
            if key not in ("name", "tasks"):
                console.print(f"    {key:<15} {value!r}" if key == "stop" else f"    {key:<15} {value}")


def print_report(report: Report, path: Path) -> None:
    """Print one table per run with its remarks, and the path of the page. The table fits 80 columns."""
    console = _LiteralConsole()
    for section in report.sections:
        table = _table("", title=section.title)
        for column in section.columns[1:]:
            table.add_column(column.replace(" ", "\n"), no_wrap=True)
        for row in section.rows:
            # An interval is printed below its mean, and parts below each other; only the name of a row wraps.
            table.add_row(*(cell.replace(" [", "\n[").replace(" / ", " /\n") for cell in row))
        console.print(table)
        for remark in section.remarks:
            console.print(f"- {remark}")
    console.print(f"report: {one_line(str(path))}", soft_wrap=True)

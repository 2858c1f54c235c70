"""Score a checkpoint or samples in four stages: generate, execute, select, score. On request, methods also choose.

| stage | interface | implementations |
|---|---|---|
| generate | `evalkit.samples.base.SampleSource` | `generation/run.py` (checkpoint), `samples/given.py` (files) |
| | | with `--refine`: `tools/refine/source.py` (checkpoint) |
| | | with `--tools`: `tools/inline/source.py` (checkpoint) |
| execute | `evalkit.scoring.execution.SampleExecutor` | the sandbox, with a cache of verdicts |
| select | `evalkit.rerank.base.Selector` | `AllSamples` |
| score | `evalkit.scoring.metrics.summarise` | pass@k with intervals |
| choose, with `--rerank` | `evalkit.rerank.run.rank_samples` | methods, by tests that the same checkpoint writes |

Frozen values pass between the stages: `SamplePlan`, `GeneratedSamples`, `Execution`, `ProblemResult`, `BenchmarkScore`.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from evalkit.cache_dirs import cache_dir
from evalkit.generation.checkpoint import Checkpoint, find_checkpoint
from evalkit.generation.run import CheckpointSource, report_weights
from evalkit.outputs.files import is_special, write_json
from evalkit.outputs.paths import locked
from evalkit.outputs.preflight import check_outputs
from evalkit.outputs.result import BenchmarkResult, Evaluation
from evalkit.reports.score_page import write_page
from evalkit.request import Request, ScoreCallbacks
from evalkit.rerank.base import AllSamples, Selector, select
from evalkit.samples.base import Execution, Sample, SamplePlan, SampleSource
from evalkit.samples.given import GivenSampleSource
from evalkit.samples.given_file import open_given
from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.execution import SampleExecutor
from evalkit.scoring.metrics import summarise
from evalkit.scoring.time_limits import TimeLimits, calibrate
from evalkit.tasks import registry
from evalkit.tasks.base import Benchmark

if TYPE_CHECKING:
    from evalkit.scoring.choosing import ChooseStage


def evaluate(request: Request, callbacks: ScoreCallbacks, *, selector: Selector | None = None) -> Evaluation:
    """Run all stages, and write the result and its page.

    Args:
        request: What to score, and where to write.
        callbacks: Progress.
        selector: The select stage; None keeps all samples.

    Raises:
        EvalError: An input is missing or broken, a setting is wrong, or an output cannot be written.
    """
    with ExitStack() as stack:
        # All inputs and outputs are checked first: a missing checkpoint or file leaves no output folder behind.
        checkpoint = find_checkpoint(request.checkpoint) if request.checkpoint is not None else None
        source: SampleSource
        if checkpoint is not None:
            source = _checkpoint_source(checkpoint, request, callbacks)
        else:
            assert request.samples is not None
            file = stack.enter_context(open_given(request.samples))
            source = GivenSampleSource(file=file, sanitize=request.sanitize, limit=request.limit, callbacks=callbacks)
        benchmarks = [registry.load(name, data_dir=request.data_dir) for name in request.tasks]
        choosing: ChooseStage | None = None
        if request.rerank and checkpoint is not None:
            from evalkit.scoring.choosing import ChooseStage  # a plain score imports neither numpy nor pyarrow

            choosing = ChooseStage(checkpoint=checkpoint, request=request, callbacks=callbacks)
            choosing.check(benchmarks)
        check_outputs(request, checkpoint)
        if request.docs is not None:
            from evalkit.tools.docs.index import DocsIndex

            DocsIndex.open(request.docs).close()  # a damaged index ends the run before a model is loaded
        if checkpoint is not None:
            report_weights(checkpoint, request, callbacks)
        if not is_special(request.result):
            stack.enter_context(locked(request.result))
        evaluation = _run(request, benchmarks, source, selector or AllSamples(), callbacks, choosing)
        result = evaluation.to_dict()
        if choosing is not None:
            result["rerank"] = {item.name: choosing.write(item) for item in evaluation.benchmarks}
        write_json(request.result, result)
        if request.page is not None:
            write_page(request.page, result, {item.name: item.problems for item in evaluation.benchmarks})
    return evaluation


def _checkpoint_source(checkpoint: Checkpoint, request: Request, callbacks: ScoreCallbacks) -> SampleSource:
    source = CheckpointSource(checkpoint=checkpoint, request=request, callbacks=callbacks)
    if request.tools:
        from evalkit.tools.inline.source import ToolSource

        return ToolSource(source=source, request=request)
    if not request.refine:
        return source
    from evalkit.tools.refine.source import RefiningSource  # a plain score imports neither numpy nor pyarrow

    return RefiningSource(source=source, request=request)


def _run(
    request: Request,
    benchmarks: list[Benchmark],
    source: SampleSource,
    selector: Selector,
    callbacks: ScoreCallbacks,
    choosing: ChooseStage | None,
) -> Evaluation:
    cache = VerdictCache(cache_dir() if request.use_cache else None)
    libraries = [folder for benchmark in benchmarks for folder in benchmark.libraries]
    with closing(cache), Pool(workers=request.workers, strict=request.strict, libraries=libraries) as pool:
        _warn_unconfined(pool.layers, callbacks)
        runner = _BenchmarkRunner(source, selector, pool, cache, callbacks, choosing)
        results = tuple(runner.run(benchmark) for benchmark in benchmarks)
        layers = tuple(pool.layers)
    if cache.problem:
        callbacks.note(f"warning: verdicts are not cached ({cache.problem})")
    return Evaluation(source=source.to_dict(), limit=request.limit, layers=layers, benchmarks=results)


def _warn_unconfined(layers: list[Layer], callbacks: ScoreCallbacks) -> None:
    if not any(layer.on for layer in layers if layer.name in ("seccomp", "landlock")):
        callbacks.note("warning: neither seccomp nor Landlock is on; see 'evalkit doctor'")


class _BenchmarkRunner:
    """The four stages, applied to one benchmark at a time."""

    def __init__(
        self,
        source: SampleSource,
        selector: Selector,
        pool: Pool,
        cache: VerdictCache,
        callbacks: ScoreCallbacks,
        choosing: ChooseStage | None,
    ) -> None:
        self._source, self._selector, self._pool, self._cache = source, selector, pool, cache
        self._callbacks, self._choosing = callbacks, choosing

    def run(self, benchmark: Benchmark) -> BenchmarkResult:
        plan = self._source.plan(benchmark)
        limits = self._time_limits(plan)
        executor = SampleExecutor(plan.problems, limits.cpu_s, self._pool, self._cache)
        generated = self._source.generate(plan, on_sample=executor.add, pool=self._pool)
        tests = self._choosing.write_tests(plan) if self._choosing is not None else None
        executions = self._finish(executor, generated.samples, num_reused=generated.num_reused)
        problems = select(self._selector, plan.problems, executions)
        score = summarise(
            {item.problem.task_id: [execution.verdict for execution in item.executions] for item in problems}
        )
        result = BenchmarkResult(plan=plan, limits=limits, generated=generated, problems=problems, score=score)
        if self._choosing is None or tests is None:
            return result
        return replace(result, choices=self._choosing.choose(plan, tests, executions, self._pool))

    def _time_limits(self, plan: SamplePlan) -> TimeLimits:
        limits = calibrate(plan.problems, self._pool, self._cache)
        for task_id, verdict in limits.failed.items():
            self._callbacks.note(
                f"warning: the reference of {task_id} does not pass on this machine "
                f"({verdict.outcome}: {verdict.detail})"
            )
        return limits

    def _finish(
        self, executor: SampleExecutor, samples: tuple[Sample, ...], *, num_reused: int
    ) -> tuple[Execution, ...]:
        """Wait for the verdicts, and report what was reused."""
        total = len(samples)
        if executor.num_distinct:
            self._callbacks.note(f"executing {executor.num_distinct} programs ({total} samples)")
        executions = executor.finish()
        if num_reused or executor.num_cached:
            self._callbacks.note(f"reused: {num_reused} of {total} samples, {executor.num_cached} of {total} verdicts")
        if hint := self._source.hint(executions):
            self._callbacks.note(hint)
        return executions

"""The choose stage of `evalkit score --rerank`: the checkpoint writes tests, and methods choose among its samples.

Tests and evidence are files beside the result, so a run that was killed at any stage goes on. Verdicts are known when
the samples are ranked, because programs are executed while others are generated; methods see the evidence only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.run import CheckpointSource
from evalkit.outputs.rerank_result import choices_dict, to_dict
from evalkit.outputs.result import BenchmarkResult
from evalkit.reports.rerank_page import write_rerank_page
from evalkit.request import Request, ScoreCallbacks, WriteTestsRequest
from evalkit.rerank.base import executions_by_task
from evalkit.rerank.model_tests import WrittenTests, written_tests
from evalkit.rerank.registry import RANKERS, choose_methods
from evalkit.rerank.run import RerankOutcome, RerankRequest, rank_samples, score_rankings
from evalkit.samples.base import Execution, SamplePlan
from evalkit.samples.given_file import open_given
from evalkit.samples.merged import MergedSamples
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tasks.prompts import shown_text

_SHARED_SETTINGS = (
    "checkpoint", "engine", "num_samples", "batch_size", "dtype", "seed", "limit", "deterministic", "data_dir",
)  # fmt: skip
"""Settings of a score that the generation of tests takes over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChooseStage:
    """The choose stage: the checkpoint writes tests, and methods rank its samples by them."""

    checkpoint: Checkpoint
    request: Request
    callbacks: ScoreCallbacks

    def check(self, benchmarks: list[Benchmark]) -> None:
        """Check methods and protocols before anything is generated.

        Raises:
            EvalError: A method is unknown, or no protocol writes tests for a benchmark.
        """
        choose_methods(self.request.rerank, RANKERS, has_tests=True, option="--rerank")
        for benchmark in benchmarks:
            self._source(benchmark.name).plan(benchmark)

    def write_tests(self, plan: SamplePlan) -> WrittenTests:
        """Generate the tests that earlier runs have not left."""
        source = self._source(plan.benchmark.name)
        test_plan = replace(source.plan(plan.benchmark), problems=plan.problems)
        generated = source.generate(test_plan, on_sample=lambda _: None)
        texts: dict[str, list[str]] = {problem.task_id: [] for problem in plan.problems}
        for text in sorted(generated.samples, key=lambda text: text.index):
            texts[text.task_id].append(text.completion or "")
        tests = written_tests(texts, plan.problems)
        for line in tests.notes(plan.benchmark.name):
            self.callbacks.note(f"tests: {line}")
        return tests

    def choose(
        self, plan: SamplePlan, tests: WrittenTests, executions: tuple[Execution, ...], pool: Pool
    ) -> RerankOutcome:
        """Rank the samples, then score the rankings by the verdicts, which no method sees."""
        assert plan.protocol is not None
        name, by_task = plan.benchmark.name, executions_by_task(plan.problems, executions)
        with open_given(self.request.sample_path(name)) as file:
            samples = MergedSamples(
                files=(file,),
                problems=plan.problems,
                samples=tuple(execution.sample for items in by_task.values() for execution in items),
                prompts={item.task_id: shown_text(plan.protocol, item, plan.benchmark) for item in plan.problems},
                num_missing=0,
                num_excluded=0,
            )
        request = RerankRequest(
            samples=(self.request.sample_path(name),),
            tests=self.request.test_path(name),
            task=name,
            methods=self.request.rerank,
            result=self.request.result,
            page=self.request.rerank_page(name),
            evidence=self.request.evidence_path(name),
            limit=self.request.limit,
        )
        ranked = rank_samples(request, plan.benchmark, samples, tests, pool=pool, callbacks=self.callbacks)
        verdicts = {task_id: tuple(execution.verdict for execution in items) for task_id, items in by_task.items()}
        return score_rankings(ranked, verdicts, layers=pool.layers, callbacks=self.callbacks)

    def write(self, result: BenchmarkResult) -> dict[str, Any]:
        """Write the page of a benchmark's choices; return what the result says of them.

        Raises:
            EvalError: The page cannot be written.
        """
        assert result.choices is not None
        page = self.request.rerank_page(result.name)
        if page is not None:
            write_rerank_page(page, result.choices, to_dict(result.choices))
        return choices_dict(result.choices) | {"page": str(page) if page is not None else None}

    def _source(self, task: str) -> CheckpointSource:
        """Return the generate stage of the tests. Lengths and sampling are those of CodeT, except for their number."""
        settings = {name: getattr(self.request, name) for name in _SHARED_SETTINGS}
        request = WriteTestsRequest(tasks=(task,), out=self.request.test_path(task), **settings)
        return CheckpointSource(checkpoint=self.checkpoint, request=request, callbacks=self.callbacks)

"""Collect evidence: execute each distinct program once per distinct call, and compare in the host.

    with Pool() as pool, EvidenceStore(path, limits=EVIDENCE_LIMITS, note=print) as store:
        collection = collect(problems, samples, tests, settings=EvidenceSettings(), pool=pool, store=store, ...)
        for evidence in collection:
            ...
        collection.counts.to_dict()

The programs of all problems form one stream through the sandbox, so its checkers stay busy from the first problem to
the last, and only what the store does not hold is executed. Programs that differ in comments and layout only are
executed once, but stay apart in the evidence: CodeT and SRank count distinct texts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from evalkit.request import ScoreCallbacks
from evalkit.rerank.call_output import call_output
from evalkit.rerank.evidence import Bool, TaskEvidence
from evalkit.rerank.inputs.sources import GENERATOR_CALL, generated_calls, require_sources
from evalkit.rerank.model_tests import WrittenTest
from evalkit.rerank.store import EvidenceStore, program_digest
from evalkit.rerank.task_plan import EvidenceSettings, TaskPlan, assemble, clusters_by_source, plan_task, statements_of
from evalkit.samples.base import Sample
from evalkit.sandbox.execute import CallLimits, ProgramCalls, ProgramResult, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem
from evalkit.tasks.codet_prompts import tested_name

MOST_TIMEOUTS = 4
"""A program that hangs in so many calls in a row is not run further. Short calls run first: a program that hangs in
them hangs in the others too, and one that is only slow has answered before its calls become large."""

EVIDENCE_LIMITS = CallLimits(
    call_cpu_s=0.1,
    after_timeout_cpu_s=0.03,
    program_cpu_s=10.0,
    most_timeouts=MOST_TIMEOUTS,
    memory_bytes=1 << 30,
    value_bytes=4096,
)
"""Limits of each program. CodeT allows 0.1 s a test. Short calls run first, so a call after one that hung is larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceCounts:
    """Counts of a collection, for reports."""

    tasks: int = 0
    samples: int = 0
    empty_samples: int = 0
    """Samples whose own text is empty."""
    programs: int = 0
    """Distinct texts of programs."""
    distinct_programs: int = 0
    """Programs that differ in more than comments and layout."""
    inputs: int = 0
    """Distinct calls that are inputs, over all problems."""
    inputs_by_source: dict[str, int] = field(default_factory=dict)
    generators: int = 0
    """Model-written functions that return inputs."""
    generators_failed: int = 0
    """Those that returned no input."""
    tests: int = 0
    """Distinct model-written tests."""
    opaque_tests: int = 0
    """Tests that run as statements."""
    tasks_without_tests: int = 0
    tasks_with_one_program: int = 0
    """Problems all samples of which are the same text."""
    tasks_without_values: int = 0
    """Problems with inputs for which no program returned a value."""
    examples: int = 0
    """Visible tests: examples of docstrings, and asserts that the protocol shows."""
    outputs: int = 0
    """Pairs of a distinct program and a source that it evaluates."""
    outputs_executed: int = 0
    """Those that the evidence file did not hold."""
    outputs_failed: int = 0
    """Those that could not be executed (`infra_error`). The next run tries again."""
    clusters_by_source: dict[str, int] = field(default_factory=dict)
    """Sum over problems of the clusters that the inputs of each source separate by themselves."""
    clusters: int = 0
    """Sum over problems of the clusters that all inputs separate."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all counts, as a result records them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """The calls of one program that the store does not hold."""

    digest: bytes
    program: str
    calls: tuple[str, ...]


@dataclass(slots=True)
class _OpenTask:
    """A planned problem and the number of its programs whose results are awaited."""

    plan: TaskPlan
    waiting: deque[_Work]
    num_calls: int
    num_failed: int = 0
    num_statements: int = 0


def collect(
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    tests: Mapping[str, Sequence[WrittenTest]],
    *,
    settings: EvidenceSettings,
    pool: Pool,
    store: EvidenceStore,
    callbacks: ScoreCallbacks,
    generators: Mapping[str, Sequence[str]] | None = None,
) -> Collection:
    """Return an iterable over the evidence of the problems that have samples, in their order.

    Args:
        problems: The problems.
        samples: Samples of these problems; others are ignored.
        tests: Model-written tests by task id; empty for methods that need none.
        settings: Sources of inputs and visible tests.
        pool: A running pool.
        store: An open store.
        callbacks: Progress.
        generators: Programs by task id that define `generate_inputs()`, for the source `generator`.

    Raises:
        EvalError: A source of inputs is unknown.
    """
    require_sources(settings.inputs)
    by_task: dict[str, list[Sample]] = {problem.task_id: [] for problem in problems}
    for sample in samples:
        if sample.task_id in by_task:
            by_task[sample.task_id].append(sample)
    chosen = [problem for problem in problems if by_task[problem.task_id]]
    return Collection(
        _Inputs(problems=chosen, samples=by_task, tests=tests, generators=generators or {}, settings=settings),
        pool,
        store,
        callbacks,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    problems: Sequence[Problem]
    samples: Mapping[str, Sequence[Sample]]
    tests: Mapping[str, Sequence[WrittenTest]]
    generators: Mapping[str, Sequence[str]]
    settings: EvidenceSettings


def hopeless_samples(evidences: Iterable[TaskEvidence]) -> dict[str, frozenset[int]]:
    """Return the samples that ran into a limit in at least `MOST_TIMEOUTS` calls, by task id."""
    hopeless = {}
    for evidence in evidences:
        is_hopeless: Bool = evidence.is_limit_PI.sum(axis=1) >= MOST_TIMEOUTS
        hopeless[evidence.task_id] = frozenset(evidence.samples_of(is_hopeless))
    return hopeless


class Collection:
    """An iterable over evidence, and its counts."""

    def __init__(self, inputs: _Inputs, pool: Pool, store: EvidenceStore, callbacks: ScoreCallbacks) -> None:
        self._inputs, self._pool, self._store, self._callbacks = inputs, pool, store, callbacks
        self._open: deque[_OpenTask] = deque()
        self.counts = EvidenceCounts()
        """Counts of the problems that were yielded so far."""

    def __iter__(self) -> Iterator[TaskEvidence]:
        """Execute what is missing; yield the evidence of each problem as soon as it is complete.

        Raises:
            EvalError: The store cannot be written.
        """
        started = time.monotonic()
        self.counts = EvidenceCounts()
        self._open.clear()
        total = sum(len(self._inputs.samples[problem.task_id]) for problem in self._inputs.problems)
        self._callbacks.start("collecting evidence", total)
        try:
            results = execute_calls(self._work(), pool=self._pool, limits=self._store.limits)
            for result in results:
                yield from self._complete(started)
                self._add(self._open[0], result)
            yield from self._complete(started)
            self._store.flush()
        finally:
            self._callbacks.stop()
        for line in _notes(self.counts):
            self._callbacks.note(line)

    def _complete(self, started: float) -> Iterator[TaskEvidence]:
        """Yield the evidence of the first open problems that wait for no result."""
        while self._open and not self._open[0].waiting:
            task = self._open.popleft()
            self._run_statements(task)
            evidence = assemble(task.plan, self._store)
            self.counts = self._counted(task, evidence, seconds=time.monotonic() - started)
            self._callbacks.step(len(task.plan.program_N))
            yield evidence

    def _work(self) -> Iterator[ProgramCalls]:
        """Yield the programs of all problems with the calls that the store does not hold."""
        generated = self._generated()
        for problem in self._inputs.problems:
            task_id = problem.task_id
            plan = plan_task(
                problem,
                self._inputs.samples[task_id],
                self._inputs.tests.get(task_id, ()),
                generated.get(task_id, ()),
                self._inputs.settings,
            )
            works = self._missing(plan)
            num_calls = sum(len(work.calls) for work in works)
            self._open.append(_OpenTask(plan, deque(works), num_calls))
            for work in works:
                yield ProgramCalls(program=work.program, calls=work.calls)

    def _missing(self, plan: TaskPlan) -> list[_Work]:
        programs = dict(zip(plan.digests, plan.programs, strict=True))
        pairs = [(digest, program, plan.calls) for digest, program in programs.items()]
        if plan.helper_calls:
            pairs.append((program_digest(plan.helper), plan.helper, plan.helper_calls))
        works = []
        for digest, program, calls in pairs:
            missing = [call for call in calls if self._store.get(self._store.key(digest, call)) is None]
            if missing:
                missing.sort(key=len)
                works.append(_Work(digest=digest, program=program, calls=tuple(missing)))
        return works

    def _add(self, task: _OpenTask, result: ProgramResult) -> None:
        work = task.waiting.popleft()
        for call, call_result in zip(work.calls, result.calls, strict=True):
            self._store.add(work.digest, call, call_output(call_result))
            task.num_failed += call_result.outcome == "infra_error"

    def _run_statements(self, task: _OpenTask) -> None:
        """Execute the opaque tests that need no program. Each has its own guest: one that hangs costs no other."""
        digest = program_digest(task.plan.helper)
        works = []
        for sources in statements_of(task.plan, self._store):
            task.num_statements += len(sources)
            missing = tuple(call for call in sources if self._store.get(self._store.key(digest, call)) is None)
            if missing:
                works.append(_Work(digest=digest, program=task.plan.helper, calls=missing))
        task.num_calls += sum(len(work.calls) for work in works)
        task.waiting.extend(works)
        jobs = [ProgramCalls(program=work.program, calls=work.calls) for work in works]
        for result in execute_calls(jobs, pool=self._pool, limits=self._store.limits):
            self._add(task, result)

    def _generated(self) -> dict[str, tuple[str, ...]]:
        """Return the calls of the model-written generators, which run in the sandbox."""
        if "generator" not in self._inputs.settings.inputs:
            return {}
        pairs = [
            (problem, source)
            for problem in self._inputs.problems
            if problem.entry_points
            for source in self._inputs.generators.get(problem.task_id, ())
        ]
        jobs = [ProgramCalls(program=source, calls=(GENERATOR_CALL,)) for _, source in pairs]
        calls: dict[str, tuple[str, ...]] = {}
        for (problem, _), result in zip(pairs, execute_calls(jobs, pool=self._pool), strict=True):
            new = generated_calls(result.calls[0], tested_name(problem))
            calls[problem.task_id] = calls.get(problem.task_id, ()) + new
            counts = self.counts
            self.counts = replace(
                counts, generators=counts.generators + 1, generators_failed=counts.generators_failed + (not new)
            )
        return calls

    def _counted(self, task: _OpenTask, evidence: TaskEvidence, *, seconds: float) -> EvidenceCounts:
        """Return the counts with those of one more problem."""
        counts, plan = self.counts, task.plan
        samples = self._inputs.samples[plan.task_id]
        distinct = len(set(plan.digests))
        sources = {name: evidence.input_sources.count(name) for name in dict.fromkeys(evidence.input_sources)}
        return replace(
            counts,
            tasks=counts.tasks + 1,
            samples=counts.samples + len(samples),
            empty_samples=counts.empty_samples + sum(not (s.solution or s.completion or "").strip() for s in samples),
            programs=counts.programs + len(plan.programs),
            distinct_programs=counts.distinct_programs + distinct,
            inputs=counts.inputs + len(plan.inputs),
            inputs_by_source=_sum(counts.inputs_by_source, sources),
            tests=counts.tests + len(plan.tests),
            opaque_tests=counts.opaque_tests + sum(test.is_opaque for test in plan.tests),
            tasks_without_tests=counts.tasks_without_tests + (not plan.tests),
            tasks_with_one_program=counts.tasks_with_one_program + (len(plan.programs) == 1 < len(samples)),
            tasks_without_values=counts.tasks_without_values + bool(plan.inputs and not evidence.is_value_PI.any()),
            examples=counts.examples + len(plan.examples),
            outputs=counts.outputs + distinct * len(plan.calls) + len(plan.helper_calls) + task.num_statements,
            outputs_executed=counts.outputs_executed + task.num_calls,
            outputs_failed=counts.outputs_failed + task.num_failed,
            clusters_by_source=_sum(counts.clusters_by_source, clusters_by_source(evidence)),
            clusters=counts.clusters + len({row.tobytes() for row in evidence.output_PI}),
            seconds=seconds,
        )


def _sum(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) + more.get(name, 0) for name in {**counts, **more}}


def _notes(counts: EvidenceCounts) -> list[str]:
    """Return a line for each peculiarity of samples and programs."""
    lines = {
        f"{counts.empty_samples} of {counts.samples} samples are empty": counts.empty_samples,
        f"{counts.tasks_with_one_program} of {counts.tasks} problems have equal samples only": (
            counts.tasks_with_one_program
        ),
        f"{counts.tasks_without_values} of {counts.tasks} problems have no program that returns a value for an input": (
            counts.tasks_without_values
        ),
        f"{counts.generators_failed} of {counts.generators} functions that a model wrote returned no input": (
            counts.generators_failed
        ),
        f"{counts.outputs_failed} of {counts.outputs} outputs are missing, because the machine failed (infra_error); "
        "run again to execute them": counts.outputs_failed,
    }
    return [line for line, number in lines.items() if number]

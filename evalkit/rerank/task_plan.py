"""One problem's evidence: what has to be executed for it, and its matrices from the stored outputs.

No field of a problem that holds the benchmark's own tests is read: neither `test`, `inputs` nor `reference`. Asserts of
`shown_tests` are read only where the protocol shows them to the model.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.rerank.call_output import CallOutput, literal_output
from evalkit.rerank.call_tests import SplitTest, split_test
from evalkit.rerank.evidence import FAILURE, LIMIT, NONE_CODE, Bool, Float64, Int32, Int64, ModelTest, TaskEvidence
from evalkit.rerank.inputs.examples import prompt_examples
from evalkit.rerank.inputs.sources import INPUT_SOURCES, combine
from evalkit.rerank.model_tests import WrittenTest
from evalkit.rerank.store import EvidenceStore, program_digest
from evalkit.samples.base import Sample
from evalkit.tasks.base import Problem

_UNKNOWN = {"timeout_cpu": LIMIT, "timeout_wall": LIMIT, "oom": LIMIT, "infra_error": FAILURE}
"""Codes of calls that ran into a limit, and of those that the machine failed to execute, which says nothing of the
program. Nothing is known of their value, so no two of them are equal."""
_HELPER_IMPORTS = "import collections, datetime, itertools, math, re, string\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceSettings:
    """Choices that decide what evidence holds."""

    inputs: tuple[str, ...] = ("tests", "examples", "mutation")
    """Sources of inputs: names of `inputs.sources.INPUT_SOURCES`."""
    docstring_examples: bool = True
    """The protocol shows the examples of docstrings. Without it they are neither examples nor inputs."""
    shown_tests: bool = False
    """The protocol shows `Problem.shown_tests`. Without it they are not read."""
    num_mutations: int = 10
    """Most inputs of a problem that come from mutation."""
    seed: int = 0
    """Seed of the mutation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskPlan:
    """What is executed for one problem. Axes as in `evidence`."""

    task_id: str
    programs: tuple[str, ...]
    """[P] Distinct texts."""
    program_N: Int32
    question: str
    """As in `TaskEvidence`."""
    log_prob_N: Float64 | None
    """[N] As in `TaskEvidence`."""
    digests: tuple[bytes, ...]
    """[P] Digest of each program without comments and layout."""
    tests: tuple[SplitTest, ...]
    times_written: tuple[int, ...]
    examples: tuple[SplitTest, ...]
    inputs: dict[str, str]
    """Source of each input."""
    helper: str
    """Program in which expected expressions are evaluated: the prompt, if it is a module, and common imports."""

    @property
    def calls(self) -> tuple[str, ...]:
        """Distinct sources that each program evaluates."""
        return tuple(dict.fromkeys([*self.inputs, *(source for test in self._all for source in _sources(test))]))

    @property
    def helper_calls(self) -> tuple[str, ...]:
        """Distinct expressions that are evaluated once, without a program."""
        return tuple(dict.fromkeys(test.other for test in self._all if test.other and not test.other_needs_program))

    @property
    def _all(self) -> tuple[SplitTest, ...]:
        return self.tests + self.examples


def _sources(test: SplitTest) -> Iterator[str]:
    if test.calls:
        yield from test.calls
    else:
        yield test.evaluated
    if test.other_needs_program:
        yield test.other


def plan_task(
    problem: Problem,
    samples: Sequence[Sample],
    written: Sequence[WrittenTest],
    generated: Iterable[str],
    settings: EvidenceSettings,
) -> TaskPlan:
    """Return what is executed for one problem.

    Args:
        problem: The problem.
        samples: Its samples, in their order.
        written: Its model-written tests.
        generated: Calls of model-written generators.
        settings: Sources of inputs and visible tests.
    """
    texts = [sample.program(problem) for sample in samples]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    tests = tuple(split_test(test.source, problem.entry_points) for test in written)
    shown = prompt_examples(problem) if settings.docstring_examples else ()
    sources = [example.test for example in shown if example.value]
    sources += problem.shown_tests if settings.shown_tests else ()
    examples = tuple(split_test(source, problem.entry_points) for source in dict.fromkeys(sources))
    inputs = combine(
        settings.inputs,
        tests=_calls(tests),
        examples=[*(example.call for example in shown), *_calls(examples)],
        generated=generated,
        num_mutations=settings.num_mutations,
        seed=f"{settings.seed} {problem.task_id}",
    )
    return TaskPlan(
        task_id=problem.task_id,
        programs=tuple(places),
        program_N=np.array([places[text] for text in texts], np.int32),
        question=problem.prompt or problem.description,
        log_prob_N=_log_probs(samples),
        digests=tuple(program_digest(text) for text in places),
        tests=tests,
        times_written=tuple(test.times_written for test in written),
        examples=examples,
        inputs=inputs,
        helper=(f"{problem.prompt}\n" if _is_module(problem.prompt) else "") + _HELPER_IMPORTS,
    )


def _log_probs(samples: Sequence[Sample]) -> Float64 | None:
    """Return [N] mean log-probabilities of the samples' tokens, NaN where unknown; None if none is known."""
    if all(sample.mean_logprob is None for sample in samples):
        return None
    return np.array([np.nan if item.mean_logprob is None else item.mean_logprob for item in samples], np.float64)


def _calls(tests: Iterable[SplitTest]) -> list[str]:
    """Return the expressions of the program that tests check, without those of opaque tests."""
    calls = []
    for test in tests:
        if test.is_call or test.names_value:
            calls.append(test.evaluated)
        if test.other_is_call:
            calls.append(test.other)
    return calls


def _is_module(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def assemble(plan: TaskPlan, store: EvidenceStore) -> TaskEvidence:
    """Return the evidence of a problem, all outputs of which are in the store."""
    distinct = {digest: place for place, digest in enumerate(dict.fromkeys(plan.digests))}
    place_P = np.array([distinct[digest] for digest in plan.digests], np.int64)
    helper = program_digest(plan.helper)
    opaque = [source for sources in statements_of(plan, store) for source in sources]
    expected = {source: _stored(store, helper, source) for source in (*plan.helper_calls, *opaque)}
    calls, columns = plan.calls, {call: column for column, call in enumerate(plan.inputs)}
    codes: dict[str, int] = {literal_output(None).digest: NONE_CODE}
    rows = []
    for digest in distinct:
        outputs = {call: _stored(store, digest, call) for call in calls}
        rows.append(_program_row(plan, outputs, expected, codes))
    output_KI, value_KI, passed_KT, example_KE, texts = _matrices(
        rows, len(plan.inputs), len(plan.tests), len(plan.examples)
    )
    return TaskEvidence(
        task_id=plan.task_id,
        programs=plan.programs,
        program_N=plan.program_N,
        question=plan.question,
        log_prob_N=plan.log_prob_N,
        inputs=tuple(plan.inputs),
        input_sources=tuple(plan.inputs.values()),
        output_PI=_unshared(output_KI[place_P]),
        is_value_PI=value_KI[place_P],
        tests=tuple(
            ModelTest(
                source=test.source,
                times_written=times,
                input=columns.get(test.evaluated),
                names_value=test.names_value,
            )
            for test, times in zip(plan.tests, plan.times_written, strict=True)
        ),
        passed_PT=passed_KT[place_P],
        example_passed_PE=example_KE[place_P],
        texts=tuple(texts[place] for place in place_P),
    )


def statements_of(plan: TaskPlan, store: EvidenceStore) -> list[tuple[str, ...]]:
    """Return the distinct statements of each opaque test that runs without the program.

    The outputs of the calls in these tests are in the store.
    """
    digests, statements = dict.fromkeys(plan.digests), []
    for test in dict.fromkeys(plan.tests + plan.examples):
        if test.calls:
            outputs = [{call: _stored(store, digest, call) for call in test.calls} for digest in digests]
            sources = dict.fromkeys(test.statements(values) for values in outputs)
            statements.append(tuple(source for source in sources if source is not None))
    return statements


def _stored(store: EvidenceStore, digest: bytes, call: str) -> CallOutput:
    output = store.get(store.key(digest, call))
    assert output is not None, f"{call[:100]} was not executed"
    return output


_Row = tuple[list[int], list[bool], list[bool], list[bool], tuple[str, ...]]


def _program_row(
    plan: TaskPlan, outputs: dict[str, CallOutput], expected: dict[str, CallOutput], codes: dict[str, int]
) -> _Row:
    """Return codes, marks of values, passed tests, passed examples and texts of one program."""

    def passes(test: SplitTest) -> bool:
        if test.calls:
            statements = test.statements(outputs)
            return statements is not None and expected[statements].is_value
        other = (outputs if test.other_needs_program else expected)[test.other] if test.other else None
        return test.passes(outputs[test.evaluated], other)

    inputs = [outputs[call] for call in plan.inputs]
    return (
        [_code(output, codes) for output in inputs],
        [output.is_value for output in inputs],
        [passes(test) for test in plan.tests],
        [passes(test) for test in plan.examples],
        tuple(output.text or output.outcome for output in inputs),
    )


def _code(output: CallOutput, codes: dict[str, int]) -> int:
    """Return the code of an output: from 0 up for values, below for the rest; one of `_UNKNOWN` without an output."""
    if output.outcome in _UNKNOWN:
        return _UNKNOWN[output.outcome]
    if output.is_value:
        return codes.setdefault(output.digest, len(codes))
    return -1 - codes.setdefault(f"{output.outcome} {output.exception}", len(codes))


_Matrices = tuple[Int64, Bool, Bool, Bool, list[tuple[str, ...]]]


def _matrices(rows: list[_Row], inputs: int, tests: int, examples: int) -> _Matrices:
    parts = list(zip(*rows, strict=True))
    return (
        np.array(parts[0], np.int64).reshape(len(rows), inputs),
        np.array(parts[1], np.bool_).reshape(len(rows), inputs),
        np.array(parts[2], np.bool_).reshape(len(rows), tests),
        np.array(parts[3], np.bool_).reshape(len(rows), examples),
        list(parts[4]),
    )


def _unshared(output_PI: Int64) -> Int64:
    """Return the codes with those of `_UNKNOWN` apart for each program."""
    program_P1 = np.arange(len(output_PI), dtype=np.int64)[:, None]
    return np.where((output_PI == LIMIT) | (output_PI == FAILURE), output_PI - program_P1, output_PI)


def num_clusters(evidence: TaskEvidence, source: str) -> int:
    """Return the number of different rows of outputs on the inputs of one source; 0 if it has no inputs."""
    columns = [place for place, name in enumerate(evidence.input_sources) if name == source]
    if not columns:
        return 0
    return len({row.tobytes() for row in np.ascontiguousarray(evidence.output_PI[:, columns])})


def clusters_by_source(evidence: TaskEvidence) -> dict[str, int]:
    """Return the number of clusters that each source separates by itself."""
    return {source: num_clusters(evidence, source) for source in INPUT_SOURCES if source in evidence.input_sources}

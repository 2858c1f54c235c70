"""Samples, and the interface of the generate stage, which produces them.

The stages of a score are generate, execute, select and score. A generate stage is a `SampleSource`: a checkpoint
(`evalkit/generation/run.py`) or files (`evalkit/samples/given.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.presets import PromptProtocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One program for one problem."""

    task_id: str
    index: int = 0
    """Number of the sample among those of its problem, from 0."""
    completion: str | None = None
    """Text that continues the problem's prompt, cut at the stop strings."""
    solution: str | None = None
    """A complete program, in place of a completion."""
    raw: str | None = None
    """The model's answer, where `solution` is only the program in it."""
    prompt: str = ""
    """Text that the model was shown."""
    stop_reason: str = ""
    """`stop` (a stop string), `end` (an end token), `length`, or "" if unknown."""
    tokens: int = 0
    """New tokens that the model generated, including those that were cut, and those of all attempts."""
    mean_logprob: float | None = None
    """Mean log-probability of the generated tokens in nats, where the sample file names it."""
    seed: int | None = None
    settings: dict[str, Any] | None = None
    """Protocol, engine, dtype and sampling settings."""
    run: str = ""
    """Digest of the checkpoint and all settings; "" for samples generated elsewhere."""
    transcript: list[dict[str, Any]] | None = None
    """With `--tools`: all calls, as `evalkit/tools/inline/calls.py` records them."""
    attempts: list[dict[str, Any]] | None = None
    """With `--refine`: all attempts, as `evalkit/tools/refine/attempts.py` records them."""

    def program(self, problem: Problem) -> str:
        """Return the module to execute."""
        return self.solution if self.solution is not None else problem.prompt + (self.completion or "")

    def to_line(self) -> str:
        """Return the sample as a line of JSONL."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(fields) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One executed sample."""

    sample: Sample
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePlan:
    """The part of a benchmark that a run scores."""

    benchmark: Benchmark
    problems: tuple[Problem, ...]
    protocol: PromptProtocol | None = None
    """How the model is prompted; None for samples generated elsewhere."""
    available: tuple[Sample, ...] = ()
    """Samples that need no generation: those of a file."""
    num_missing: int = 0
    """Problems of the benchmark without any sample."""
    num_excluded: int = 0
    """Samples of problems in `Benchmark.excluded_ids`, which are not scored."""
    documentation: Mapping[str, str] = field(default_factory=dict)
    """Documentation that the prompt of a problem begins with, by task id."""
    retrieval: dict[str, Any] | None = None
    """Where it comes from, for the result: index, limits and recall; None for prompts without documentation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedSamples:
    """Output of the generate stage for one benchmark."""

    samples: tuple[Sample, ...]
    """All samples, in the order in which they were delivered."""
    num_reused: int = 0
    """Samples that an earlier run had generated."""
    generation: dict[str, Any] | None = None
    """Engine settings, seed and hardware for the result; None for samples generated elsewhere."""
    tool_calls: dict[str, Any] | None = None
    """Counts of calls for the result, with `--tools`."""
    refinement: dict[str, Any] | None = None
    """Counts of attempts for the result, with `--refine`."""


class SampleSource(Protocol):
    """A generate stage."""

    def plan(self, benchmark: Benchmark) -> SamplePlan:
        """Return the problems to score.

        Raises:
            EvalError: The settings or the samples do not fit the benchmark.
        """

    def generate(
        self, plan: SamplePlan, *, on_sample: Callable[[Sample], None], pool: Pool | None = None
    ) -> GeneratedSamples:
        """Produce the samples of the planned problems.

        Args:
            plan: A result of `plan`.
            on_sample: Receives each sample as soon as it is available, so that execution overlaps generation.
            pool: The running sandbox, for sources whose answers depend on what programs do.

        Raises:
            EvalError: The samples cannot be generated or stored.
        """

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Return advice that follows from the verdicts; "" for none."""

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` and `samples` of the result, one of which is None."""

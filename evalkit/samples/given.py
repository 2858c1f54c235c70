"""The generate stage for samples generated elsewhere.

Of `completion` (which continues the prompt) and `solution` (a complete program), the solution counts where a row has
both, as in EvalPlus. A row with `messages` is a chat model's answer (`teacher-dump --responses-only` writes such rows);
only the program in it is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.errors import EvalError
from evalkit.request import ScoreCallbacks
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.samples.given_file import EXPECTED, GivenFile, open_given
from evalkit.samples.listed import STOPS, single_rows
from evalkit.samples.sanitize import sanitize
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark


class GivenSamples(NamedTuple):
    """Samples of one benchmark that were generated elsewhere."""

    samples: list[Sample]
    excluded: list[str]
    """Task ids of the samples of `Benchmark.excluded_ids`, one per sample; these are not scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenSampleSource:
    """Samples from a file or folder. See `SampleSource` for the interface."""

    file: GivenFile
    sanitize: bool
    """Reduce each sample to the program in it."""
    limit: int | None
    """Score only so many problems, the first ones that have samples."""
    callbacks: ScoreCallbacks

    def plan(self, benchmark: Benchmark) -> SamplePlan:
        """Return the problems that have samples; report those without, and samples of excluded problems."""
        given = samples_of(self.file, benchmark)
        task_ids = {sample.task_id for sample in given.samples}
        problems = [problem for problem in benchmark.problems if problem.task_id in task_ids]
        total = len(benchmark.problems)
        if num_missing := total - len(problems):
            self.callbacks.note(f"{num_missing} of {total} {benchmark.name} problems have no sample: left out")
        if given.excluded:
            excluded = sorted({*given.excluded}, key=lambda task_id: int(task_id.rpartition("/")[2]))
            self.callbacks.note(
                f"{len(given.excluded)} samples are of {len(excluded)} problems that {benchmark.name} does not "
                f"have ({', '.join(excluded[:3])}, ...): left out"
            )
        planned = tuple(problems[: self.limit])
        planned_ids = {problem.task_id for problem in planned}
        return SamplePlan(
            benchmark=benchmark,
            problems=planned,
            available=tuple(sample for sample in given.samples if sample.task_id in planned_ids),
            num_missing=num_missing,
            num_excluded=len(given.excluded),
        )

    def generate(
        self, plan: SamplePlan, *, on_sample: Callable[[Sample], None], pool: Pool | None = None
    ) -> GeneratedSamples:
        """Deliver the samples of the plan, sanitized if requested."""
        samples = plan.available
        if self.sanitize:
            samples = tuple(sanitized(sample, plan.benchmark) for sample in samples)
        for sample in samples:
            on_sample(sample)
        return GeneratedSamples(samples=samples)

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Advise --sanitize where Markdown fences are the cause of all failures."""
        return "" if self.sanitize else fence_hint(executions)

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` (None) and `samples` of the result."""
        return {"checkpoint": None, "samples": self.file.to_dict() | {"sanitized": self.sanitize}}


def read_samples(path: Path, benchmark: Benchmark) -> GivenSamples:
    """Read the samples at `path`; see `samples_of`."""
    with open_given(path) as given:
        return samples_of(given, benchmark)


def samples_of(given: GivenFile, benchmark: Benchmark) -> GivenSamples:
    """Read the samples of one benchmark; ids may be bare numbers (`11`) or the benchmark's ids (`Mbpp/11`).

    Raises:
        EvalError: There is no sample of this benchmark, or a row is not a sample of it; names the row.
    """
    known = {problem.task_id: problem.task_id for problem in benchmark.problems}
    known |= {task_id: task_id for task_id in benchmark.excluded_ids}
    known |= {task_id.rpartition("/")[2]: task_id for task_id in known}
    samples: list[Sample] = []
    excluded: list[str] = []
    counts: dict[str, int] = {}
    for place, fields in single_rows(given, benchmark, stops=STOPS):
        task_id = known.get(str(fields["task_id"]).strip())
        if task_id is None:
            raise EvalError(
                f"{place}: task_id {str(fields['task_id'])[:80]!r} is not of {benchmark.name}, whose ids look like "
                f"{benchmark.problems[0].task_id}; name the right benchmark with --tasks"
            )
        if task_id in benchmark.excluded_ids:
            excluded.append(task_id)
            continue
        index = counts.get(task_id, 0)
        counts[task_id] = index + 1
        log_prob = _log_prob(fields, place)
        sample = Sample(task_id=task_id, index=index, mean_logprob=log_prob, **_text(fields, place))
        samples.append(sanitized(sample, benchmark) if _is_chat(fields, place) else sample)
    if not samples:
        which = f"only samples of problems that {benchmark.name} does not have" if excluded else "no sample"
        raise EvalError(f"{given.label}: holds {which}; expected lines with task_id and completion or solution")
    return GivenSamples(samples, excluded)


def _text(fields: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the solution or completion under its name; null counts as absent."""
    for key in ("solution", "completion"):
        if (text := fields.get(key)) is not None:
            if not isinstance(text, str):
                raise EvalError(f"{place}: {key} is {type(text).__name__}, not text; {EXPECTED}")
            return {key: text}
    raise EvalError(f"{place}: has no completion and no solution; {EXPECTED}")


def _is_chat(fields: dict[str, Any], place: str) -> bool:
    """Return whether a row is a chat model's answer: it has the `messages` that were answered.

    Such an answer holds text around the program, so only the program in it is executed.
    """
    messages = fields.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise EvalError(f"{place}: messages is {type(messages).__name__}, expected a list; correct or remove the field")
    return bool(messages)


def _log_prob(fields: dict[str, Any], place: str) -> float | None:
    """Return the mean log-probability of the generated tokens; None if the row names none."""
    value = fields.get("mean_logprob")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e6 <= value <= 0:
        raise EvalError(
            f"{place}: mean_logprob is {str(value)[:40]}, expected the mean log-probability of the tokens in nats, at "
            "most 0; correct the field or leave it out"
        )
    return float(value)


def sanitized(sample: Sample, benchmark: Benchmark) -> Sample:
    """Return the sample reduced to a complete program; `raw` keeps the original text."""
    problem = next(problem for problem in benchmark.problems if problem.task_id == sample.task_id)
    if not problem.entry_points:
        return sample
    names = "|".join(map(re.escape, problem.entry_points))
    original = sample.solution if sample.solution is not None else sample.completion or ""
    defines_it = re.search(rf"^\s*(async\s+)?def\s+(?:{names})\b", original, re.MULTILINE)
    text = original
    if sample.solution is None and not defines_it:  # a continuation of the prompt, perhaps in fences
        fenced = re.search(r"^```[^\n]*\n(.*?)(?:^```|\Z)", original, re.MULTILINE | re.DOTALL)
        text = problem.prompt + (fenced.group(1) if fenced else original)
    program = sanitize(text, problem.entry_points)
    return replace(sample, completion=None, solution=program, raw=original if program != original else None)


def fence_hint(executions: Sequence[Execution]) -> str:
    """Return advice where Markdown fences make samples fail; "" where some sample with fences is valid Python."""
    fenced = [
        execution
        for execution in executions
        if re.search(r"^\s*```", execution.sample.solution or execution.sample.completion or "", re.MULTILINE)
    ]
    if not fenced or any(not execution.verdict.detail.startswith("SyntaxError") for execution in fenced):
        return ""
    return (
        f"hint: {len(fenced)} of {len(executions)} samples hold Markdown fences (```), and none of these is Python; "
        "--sanitize executes only the program in each"
    )

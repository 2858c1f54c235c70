"""Samples of several files for one benchmark, and what their rows say of the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.samples.base import Sample
from evalkit.samples.given import samples_of, sanitized
from evalkit.samples.given_file import GivenFile, open_given
from evalkit.samples.listed import single_rows
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.presets import PROTOCOLS
from evalkit.tasks.prompts import build_prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedSamples:
    """Samples of one benchmark. The samples of a problem are numbered across files."""

    files: tuple[GivenFile, ...]
    problems: tuple[Problem, ...]
    """Problems with samples, in the benchmark's order."""
    samples: tuple[Sample, ...]
    """Samples by problem, in the order of files and rows."""
    prompts: dict[str, str]
    """Prompt that the rows of a problem name, by task id; problems whose rows name none are absent."""
    num_missing: int
    """Problems of the benchmark without any sample."""
    num_excluded: int
    """Samples of problems that this form of the benchmark does not have."""

    def of(self, task_id: str) -> tuple[Sample, ...]:
        """Return the samples of one problem, by index."""
        return tuple(sample for sample in self.samples if sample.task_id == task_id)


def read_merged(
    paths: Sequence[Path], benchmark: Benchmark, *, sanitize: bool, limit: int | None, note: Callable[[str], None]
) -> MergedSamples:
    """Read sample files of one benchmark.

    Args:
        paths: Files or folders; `-` is standard input.
        benchmark: The benchmark of the samples.
        sanitize: Reduce each sample to the program in it.
        limit: Keep only so many problems, the first ones that have samples.
        note: Receives a line about samples that are left out and problems without samples.

    Raises:
        EvalError: A file cannot be read, two files are equal, or samples of one problem have different prompts.
    """
    with ExitStack() as stack:
        files = tuple(stack.enter_context(open_given(path)) for path in paths)
        _refuse_equal(files)
        given = [samples_of(file, benchmark) for file in files]
        prompts = _prompts(files, benchmark)
    by_task: dict[str, list[Sample]] = {problem.task_id: [] for problem in benchmark.problems}
    for part in given:
        for sample in part.samples:
            chosen = sanitized(sample, benchmark) if sanitize else sample
            by_task[sample.task_id].append(replace(chosen, index=len(by_task[sample.task_id])))
    problems = [problem for problem in benchmark.problems if by_task[problem.task_id]]
    total, num_excluded = len(benchmark.problems), sum(len(part.excluded) for part in given)
    if num_missing := total - len(problems):
        note(f"{num_missing} of {total} {benchmark.name} problems have no sample: left out")
    if num_excluded:
        note(f"{num_excluded} samples are of problems that {benchmark.name} does not have: left out")
    problems = problems[:limit]
    return MergedSamples(
        files=files,
        problems=tuple(problems),
        samples=tuple(sample for problem in problems for sample in by_task[problem.task_id]),
        prompts=prompts,
        num_missing=num_missing,
        num_excluded=num_excluded,
    )


def _refuse_equal(files: Sequence[GivenFile]) -> None:
    labels: dict[str, str] = {}
    for file in files:
        if file.sha256 in labels:
            raise EvalError(
                f"{file.label}: holds the same samples as {labels[file.sha256]}; name each file of samples once"
            )
        labels[file.sha256] = file.label


def _prompts(files: Sequence[GivenFile], benchmark: Benchmark) -> dict[str, str]:
    """Return the prompt that the rows of each problem name; samples of different prompts cannot be compared."""
    known = {problem.task_id.rpartition("/")[2]: problem for problem in benchmark.problems}
    messages: dict[tuple[str, str], str] = {}
    prompts: dict[str, str] = {}
    places: dict[str, str] = {}
    for file in files:
        for place, fields in single_rows(file, benchmark):
            prompt = fields.get("prompt")
            problem = known.get(str(fields["task_id"]).strip().rpartition("/")[2])
            if problem is None or not isinstance(prompt, str) or not prompt:
                continue
            task_id, protocol = problem.task_id, _protocol_name(fields)
            if (protocol, task_id) not in messages:
                messages[protocol, task_id] = _message(protocol, problem, benchmark)
            prompt = messages[protocol, task_id] + prompt
            if prompts.setdefault(task_id, prompt) != prompt:
                raise EvalError(
                    f"{place}: the prompt of {task_id} differs from that at {places[task_id]}; expected samples of one "
                    "protocol; rerank each protocol's samples by themselves"
                )
            places.setdefault(task_id, place)
    return prompts


def _protocol_name(fields: dict[str, Any]) -> str:
    """Return the protocol that a row of `evalkit score` names; "" for rows of other programs."""
    settings = fields.get("settings")
    return str(settings.get("protocol", "")).removesuffix("+changed") if isinstance(settings, dict) else ""


def _message(name: str, problem: Problem, benchmark: Benchmark) -> str:
    """Return the message of a chat protocol, which shows the problem; rows hold only the beginning of the answer."""
    for protocol in PROTOCOLS:
        if protocol.name == name and protocol.is_chat and benchmark.name in protocol.tasks:
            return build_prompt(protocol, problem, benchmark).user or ""
    return ""

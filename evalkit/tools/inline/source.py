"""The generate stage with inline calls of tools: as without, and each answer may stop for calls."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from evalkit.generation.base import Answer
from evalkit.generation.checkpoint import has_chat_template
from evalkit.generation.decoding import token_counter
from evalkit.generation.run import CheckpointSource, SampleTemplate, choose_engine, first_prompts
from evalkit.request import Request
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.samples.sample_file import SampleFile
from evalkit.samples.sanitize import sanitize
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tools.base import Tool, ToolContext, load_tools, tool_classes
from evalkit.tools.inline.calls import CallBudget, ToolConversations
from evalkit.tools.inline.prompts import FORM_VERSION, first_call, tool_prompt, tool_protocol
from evalkit.tools.python import without_fence

_THREADS = 32
"""Calls that are made at the same time. Calls of the interpreter wait for a checker, calls of a search for a core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSource:
    """Samples that a checkpoint writes with tools. See `SampleSource` for the interface."""

    source: CheckpointSource
    request: Request

    def plan(self, benchmark: Benchmark) -> SamplePlan:
        """Return the problems that the protocol covers, with the protocol of answers that call tools."""
        plan = self.source.plan(benchmark)
        assert plan.protocol is not None
        return replace(plan, protocol=tool_protocol(plan.protocol, tool_classes(self.request.tools)))

    def generate(
        self, plan: SamplePlan, *, on_sample: Callable[[Sample], None], pool: Pool | None = None
    ) -> GeneratedSamples:
        """Deliver the samples that earlier runs left, then generate and store the others."""
        assert pool is not None
        context = ToolContext(pool=pool, docs=self.request.docs)
        with ExitStack() as stack:
            tools = load_tools(self.request.tools, context)
            for tool in tools:
                stack.callback(tool.close)
            return self._generate(plan, tools, on_sample)

    def _generate(self, plan: SamplePlan, tools: list[Tool], on_sample: Callable[[Sample], None]) -> GeneratedSamples:
        assert plan.protocol is not None
        source, choice, protocol = self.source, choose_engine(self.request, self.source.checkpoint), plan.protocol
        chat = has_chat_template(source.checkpoint)
        opening = first_call(tools[0]) if self.request.tool_first else ""
        prompts = [
            tool_prompt(prompt, tools, chat=chat, opening=opening)
            for prompt in first_prompts(plan, seed=self.request.seed)
        ]
        used = self._record(tools)
        digest = source.run_digest(plan, choice.settings).derived(FORM_VERSION, used)
        template = SampleTemplate.of(plan, choice.settings, run=digest.run)
        samples: list[Sample] = []

        def deliver(sample: Sample) -> None:
            samples.append(sample)
            on_sample(sample)

        with (
            SampleFile(self.request.sample_path(plan.benchmark.name), run=digest.run, earlier=digest.earlier) as file,
            closing(self._conversations(plan, tools, opening)) as conversations,
            source.session(protocol, choice) as session,
        ):
            num_reused = session.complete(
                prompts,
                file,
                label=f"generating {plan.benchmark.name} with {', '.join(self.request.tools)}",
                sample_of=lambda answer: tool_sample(template, answer),
                on_sample=deliver,
                conversations=conversations,
            )
        generation = source.record(choice.settings) | {"tools": used}
        return GeneratedSamples(
            samples=tuple(samples), num_reused=num_reused, generation=generation, tool_calls=call_counts(samples)
        )

    def _conversations(self, plan: SamplePlan, tools: list[Tool], opening: str) -> ToolConversations:
        assert plan.protocol is not None
        return ToolConversations(
            tools,
            {problem.task_id: problem for problem in plan.problems},
            self._budget,
            max_new_tokens=plan.protocol.max_new_tokens,
            count_tokens=token_counter(self.source.checkpoint),
            threads=_THREADS,
            opening=opening,
        )

    @property
    def _budget(self) -> CallBudget:
        return CallBudget(calls=self.request.tool_calls, result_tokens=self.request.tool_tokens)

    def _record(self, tools: list[Tool]) -> dict[str, Any]:
        """Return what a result records of the tools; it is part of the digest of a run."""
        limits = {"calls": self._budget.calls, "result_tokens": self._budget.result_tokens}
        limits["first"] = self.request.tool_first
        return limits | {tool.name: tool.to_dict() for tool in tools}

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Return advice where no answer called a tool."""
        samples = [execution.sample for execution in executions]
        if samples and not any(sample.transcript for sample in samples):
            more = "" if self.request.tool_first else "; --tool-first begins each answer with a call"
            return f"no answer called {' or '.join(self.request.tools)}{more}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` and `samples` (None) of the result."""
        return self.source.to_dict()


def tool_sample(template: SampleTemplate, answer: Answer) -> Sample:
    """Return the sample of an answer: the program is in its text outside of calls, or else in its calls of Python.

    Models often write the program in a call, see that it works, and end there. Then the program is all that the calls
    define up to the last one that defines an entry point: what the interpreter held. An answer that was cut by its
    length may end in half a program: then its calls come first.
    """
    own = answer.own_text if answer.own_text is not None else answer.completion
    entry_points = template.entry_points.get(answer.prompt.task_id, ())
    names = set(entry_points)
    if answer.stop_reason == "length" or not names <= _defined(sanitize(own, entry_points)):
        cells = [without_fence(call["text"]) for call in answer.transcript if call["tool"] == "python"]
        defining = [number for number, cell in enumerate(cells) if names & _defined(cell)]
        if defining:
            cells = [cell for cell in cells[: defining[-1] + 1] if _bound_names(cell) is not None]
            if names <= set().union(*map(_defined, cells)):
                own = "\n\n".join(cells)
    sample = template.sample(replace(answer, completion=own))
    return replace(sample, raw=answer.completion, transcript=list(answer.transcript))


def _defined(text: str) -> set[str]:
    """Return the names that a program defines; none if it is not valid Python."""
    return _bound_names(text) or set()


def _bound_names(text: str) -> set[str] | None:
    """Return the names that a program's functions, classes and assignments bind; None if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    names = {node.name for node in body if isinstance(node, functions)}
    return names | {target.id for target in targets if isinstance(target, ast.Name)}


def call_counts(samples: Iterable[Sample]) -> dict[str, Any]:
    """Return what a result says of the calls of a benchmark's samples."""
    samples = list(samples)
    calls = [call for sample in samples for call in sample.transcript or ()]
    per_tool: Mapping[str, int] = {
        name: sum(call["tool"] == name for call in calls) for name in sorted({call["tool"] for call in calls})
    }
    return {
        "samples": len(samples),
        "samples_with_calls": sum(bool(sample.transcript) for sample in samples),
        "calls": dict(per_tool),
        "generated_tokens": sum(sample.tokens for sample in samples),
    }

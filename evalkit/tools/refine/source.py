"""The generate stage with refinement: rounds of attempts, until the visible tests of each sample end it.

Each round is one list of prompts and one file of answers, `NAME.attempt0.jsonl` and so on. An interrupted run finds the
answers there, with fewer or more rounds too; programs are executed again. Rounds have an order that depends on the
answers alone, so that deterministic runs repeat their batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, EngineSettings, Prompt
from evalkit.generation.decoding import context_length, load_config, load_tokenizer, prompt_ids
from evalkit.generation.run import CheckpointSource, GenerationSession, SampleTemplate, choose_engine, first_prompts
from evalkit.generation.run_digest import RunDigest
from evalkit.request import Request
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.samples.sample_file import SampleFile
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tasks.prompts import shown_text
from evalkit.tools.refine.attempts import Attempt, end_of, refined_sample, summary
from evalkit.tools.refine.prompts import LEAST_TEMPERATURES, MESSAGES_VERSION, message_after, next_prompt
from evalkit.tools.refine.visible import VisibleChecker, VisibleOutcome, visible_tests

_MESSAGE_TOKENS = 400
"""Estimate of the longest message about a failure, in tokens."""

_Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefiningSource:
    """Samples that a checkpoint generates and refines. See `SampleSource` for the interface."""

    source: CheckpointSource
    request: Request

    def plan(self, benchmark: Benchmark) -> SamplePlan:
        """Return the problems that the protocol covers.

        Raises:
            EvalError: The protocol shows no test of any of them.
        """
        plan = self.source.plan(benchmark)
        assert plan.protocol is not None
        visible = _visible(plan)
        if not any(visible.values()):
            raise EvalError(
                f"--refine: protocol {plan.protocol.name} shows no test of the {benchmark.name} problems; choose one "
                "that does with --protocol"
            )
        if without := sum(not tests for tests in visible.values()):
            self.source.callbacks.note(
                f"{without} of {len(visible)} {benchmark.name} problems show no test in their prompt: not refined"
            )
        if any(problem.shown_tests for problem in plan.problems):
            self.source.callbacks.note(
                f"warning: the tests that {plan.protocol.name} shows also score {benchmark.name}; a refined score is "
                "higher than on tests that were never shown"
            )
        return plan

    def generate(
        self, plan: SamplePlan, *, on_sample: Callable[[Sample], None], pool: Pool | None = None
    ) -> GeneratedSamples:
        """Generate the samples in rounds; deliver each as soon as no further attempt follows."""
        assert pool is not None
        assert plan.protocol is not None
        choice = choose_engine(self.request, self.source.checkpoint)
        with VisibleChecker(pool) as checker, self.source.session(plan.protocol, choice) as session:
            rounds = _Rounds(self.source, self.request, plan, session, checker, settings=choice.settings)
            samples, num_reused = rounds.run(on_sample)
        counts = summary(samples)
        self.source.callbacks.note(
            f"refined: {sum(number for name, number in counts['attempts'].items() if name != '1')} of {len(samples)} "
            f"samples, {counts['ends']['passed']} pass their visible tests"
        )
        generation = self.source.record(choice.settings) | {
            "refine": self.request.refine,
            "refine_form": self.request.refine_form,
            "refine_temperature": max(LEAST_TEMPERATURES[self.request.refine_form], plan.protocol.temperature),
        }
        return GeneratedSamples(samples=samples, num_reused=num_reused, generation=generation, refinement=counts)

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Return "": there is no advice about generated samples."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` and `samples` (None) of the result."""
        return self.source.to_dict()


def _visible(plan: SamplePlan) -> dict[str, Any]:
    assert plan.protocol is not None
    return {
        problem.task_id: visible_tests(problem, shown_text(plan.protocol, problem, plan.benchmark))
        for problem in plan.problems
    }


@dataclass(slots=True)
class _Chain:
    """The attempts at one sample."""

    first: Prompt
    attempts: list[Attempt] = field(default_factory=list)
    following: Prompt | None = None
    """Prompt of the next attempt; None until one is asked for."""


class _Rounds:
    """All rounds of one benchmark."""

    def __init__(
        self,
        source: CheckpointSource,
        request: Request,
        plan: SamplePlan,
        session: GenerationSession,
        checker: VisibleChecker,
        *,
        settings: EngineSettings,
    ) -> None:
        assert plan.protocol is not None
        self._source, self._request, self._plan = source, request, plan
        self._session, self._checker, self._protocol = session, checker, plan.protocol
        self._plain_run = source.run_digest(plan, settings)
        self._template = SampleTemplate.of(plan, settings, run=self._plain_run.run)
        self._tests = _visible(plan)
        self._problems = {problem.task_id: problem for problem in plan.problems}
        firsts = first_prompts(plan, seed=request.seed)
        self._chains = {(prompt.task_id, prompt.index): _Chain(prompt) for prompt in firsts}

    def run(self, on_sample: Callable[[Sample], None]) -> tuple[tuple[Sample, ...], int]:
        """Return all samples, and the number of those that an earlier run had finished.

        Raises:
            EvalError: Samples cannot be generated or stored, or programs cannot be executed on this machine.
        """
        refinements, samples, failed = self._request.refine, [], 0
        path = self._request.sample_path(self._plan.benchmark.name)
        digest = self._digest("refine", refinements)
        with SampleFile(path, run=digest.run, earlier=digest.earlier) as file:
            if all(key in file.found for key in self._chains):
                samples = [file.found[key] for key in self._chains]
                for sample in samples:
                    on_sample(sample)
                return tuple(samples), len(samples)
            prompts = [chain.first for chain in self._chains.values()]
            for number in range(refinements + 1):
                following = []
                for chain, end in self._round(number, prompts):
                    if end == "infra_error":
                        failed += 1
                    elif end:
                        samples.append(self._finished(chain, end, file))
                        on_sample(samples[-1])
                    else:
                        assert chain.following is not None
                        following.append(chain.following)
                prompts = sorted(following, key=_length, reverse=True)
        if failed:
            raise EvalError(
                f"{failed} programs could not be executed on their visible tests on this machine (infra_error); fix "
                "the cause and run the same command again"
            )
        return tuple(samples), len(file.found)

    def _round(self, number: int, prompts: Sequence[Prompt]) -> Iterator[tuple[_Chain, str]]:
        """Generate one attempt for each prompt; yield its chain with the reason for its end, "" if it goes on."""
        if not prompts:
            return
        outcomes: dict[_Key, tuple[Sample, Future[VisibleOutcome]]] = {}

        def check(sample: Sample) -> None:
            program = sample.program(self._problems[sample.task_id])
            future = self._checker.submit(program, self._tests[sample.task_id])
            outcomes[sample.task_id, sample.index] = (sample, future)

        name = self._plan.benchmark.name
        digest = self._digest("attempt", number) if number else self._plain_run
        path = self._request.attempt_path(name, number)
        with SampleFile(path, run=digest.run, earlier=digest.earlier) as file:
            _forget_others(file, prompts)
            self._session.complete(
                prompts,
                file,
                label=f"generating {name}" if number == 0 else f"refining {name}, round {number}",
                sample_of=lambda answer: self._sample(answer, digest.run),
                on_sample=check,
                extra_tokens=self._extra_tokens(number),
            )
        for prompt in prompts:
            chain = self._chains[prompt.task_id, prompt.index]
            self._add(chain, *outcomes[prompt.task_id, prompt.index])
            yield chain, self._end(chain)

    def _sample(self, answer: Answer, run: str) -> Sample:
        """Return the sample of an answer, as if the first prompt had led to it."""
        first = self._chains[answer.prompt.task_id, answer.prompt.index].first
        template = replace(self._template, run=run)
        return template.sample(replace(answer, prompt=replace(first, seed=answer.prompt.seed)))

    def _add(self, chain: _Chain, sample: Sample, outcome: Future[VisibleOutcome]) -> None:
        message = message_after(chain.attempts, self._protocol, form=self._request.refine_form)
        program = sample.program(self._problems[sample.task_id])
        attempt = Attempt(sample=sample, program=program, message=message, outcome=outcome.result())
        chain.attempts.append(attempt)

    def _end(self, chain: _Chain) -> str:
        if chain.attempts[-1].outcome.kind == "infra_error":
            return "infra_error"
        num_tests = len(self._tests[chain.first.task_id])
        end = end_of(
            chain.attempts,
            num_tests=num_tests,
            refinements=self._request.refine,
            independent=self._request.refine_form == "sample",
        )
        return end or ("" if self._fits(chain) else "context")

    def _fits(self, chain: _Chain) -> bool:
        """Make the next prompt, and return whether it leaves room for the longest answer."""
        chain.following = next_prompt(chain.first, chain.attempts, self._protocol, form=self._request.refine_form)
        tokenizer, context = self._tokenizer_and_context
        return len(prompt_ids(tokenizer, chain.following)) + self._protocol.max_new_tokens <= context

    @cached_property
    def _tokenizer_and_context(self) -> tuple[Any, int]:
        checkpoint = self._source.checkpoint
        return load_tokenizer(checkpoint), context_length(load_config(checkpoint))

    def _finished(self, chain: _Chain, end: str, file: SampleFile) -> Sample:
        """Return the sample of a finished chain; store it unless an earlier run did."""
        key = (chain.first.task_id, chain.first.index)
        if key in file.found:
            return file.found[key]
        num_tests, digest = len(self._tests[key[0]]), self._digest("refine", self._request.refine)
        sample = refined_sample(chain.attempts, num_tests=num_tests, end=end, run=digest.run)
        file.add(sample)
        return sample

    def _extra_tokens(self, number: int) -> int:
        """Return the tokens by which later prompts may be longer than those of round `number`."""
        each = self._protocol.max_new_tokens + _MESSAGE_TOKENS
        return (self._request.refine - number) * each

    def _digest(self, what: str, number: int) -> RunDigest:
        """Return the digest of a part of this run."""
        return self._plain_run.derived(MESSAGES_VERSION, self._request.refine_form, what, number)


def _length(prompt: Prompt) -> int:
    """Return the length of all that a prompt shows, in characters."""
    return len(prompt.text) + len(prompt.user or "") + sum(len(turn.content) for turn in prompt.earlier)


def _forget_others(file: SampleFile, prompts: Sequence[Prompt]) -> None:
    """Forget the answers in a file that other earlier attempts led to: a prompt's seed depends on them."""
    seeds = {(prompt.task_id, prompt.index): prompt.seed for prompt in prompts}
    file.found = {key: sample for key, sample in file.found.items() if sample.seed == seeds.get(key)}

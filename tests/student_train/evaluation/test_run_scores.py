"""Tests of evaluations of a run that a signal stops: nothing is lost, and the curve is that of a run without a stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from student_train.errors import Interrupted
from student_train.training import loop
from tests.student_train.toy import digest, losses, run, toy_config

STEPS = 5
CURVE = "held_out_curve.jsonl"


def settings(world: Any, out: Path) -> Any:
    return toy_config(world, out, max_steps=STEPS, save_every=0, eval_every=2)


@pytest.fixture(scope="module")
def finished(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
        run(settings(world, out))
    return out


@pytest.mark.parametrize(
    ("function", "name"), [("score_run", "step"), pytest.param("take_step", "number", marks=pytest.mark.slow)]
)
def test_a_stop_at_an_evaluation_saves_and_the_curve_is_whole(
    function: str, name: str, world: Any, at_home: Any, finished: Path, tmp_path: Path
) -> None:
    """The signal comes while held-out rows are scored, or in the step before it."""
    out, real = tmp_path / "out", getattr(loop, function)

    def signalled(*args: Any, **named: Any) -> Any:
        if named[name] == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=f"stopped at step 4 of {STEPS}"):
        patch.setattr(loop, function, signalled)
        run(settings(world, out))
    assert (out / "checkpoints" / "step-4").is_dir()
    assert run(settings(world, out))[0].endswith(f"continuing at step 4 of {STEPS}")
    assert (out / CURVE).read_bytes() == (finished / CURVE).read_bytes()
    assert len((out / CURVE).read_text().splitlines()) == 2
    assert (digest(out), losses(out)) == (digest(finished), losses(finished))

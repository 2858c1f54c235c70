"""One run from its start to its record: open, load, measure, train, save, measure again. Stoppable anywhere.

`run` is what the command line calls. OUT becomes an ordinary transformers folder; its `run.json` comes last and so
means that the run is finished. Everything between two checkpoints is a pure function of the first of them and the
configuration, so a run that was killed and continued ends in the same bits as one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import shards
from shards.live import open_live
from shards.reports.summary import licence_line
from student_train.config import Config
from student_train.data.loader import Step, Stream
from student_train.data.packing import Batch
from student_train.data.segments import Leg
from student_train.evaluation import completions
from student_train.evaluation.completions import try_to_complete
from student_train.evaluation.exported import export_and_score
from student_train.evaluation.held_out import lines, score, summary
from student_train.model.base import base_sha256, known_base_sha256
from student_train.objectives.base import ObjectiveState
from student_train.objectives.row_score import RowScore
from student_train.outputs import checkpoint, export
from student_train.outputs.lock import locked
from student_train.outputs.metrics import Log, open_log
from student_train.outputs.progress import Progress
from student_train.outputs.run_dir import Identity, is_finished, newest_state, read_record
from student_train.outputs.run_record import describe, held_out_record, result_line, run_record
from student_train.training.build_run import prepare
from student_train.training.distributed import World, join
from student_train.training.state import Handover, of_record, of_state, settings_of
from student_train.training.hardware import Hardware, lines_for, settle
from student_train.training.optimizer import learning_rate
from student_train.training.run_context import Run, Say, interrupted, say_on_stderr
from student_train.training.runtime import deterministic, stop_on_signals
from student_train.training.train_step import StepResult, take_step
from student_train.training.trainable import count_empty, require_trainable, require_trained


def run(
    config: Config, *, command: list[str], say: Say = say_on_stderr, segments: Sequence[dict[str, Any]] = ()
) -> None:
    """Train what `config` asks for, and its control if asked; do nothing for what is finished.

    `segments` are those of the record of a run that is to be repeated, where it followed a growing cache.

    Raises: TrainError and shards.ShardError for what a user can mend, Interrupted after a signal, state saved.
    """
    cache = None if config.follow else shards.open(config.shards)
    handover = Handover(segments=list(segments))
    with deterministic(), join(config.device) as world:
        say = say if world.leads else _say_nothing
        hardware = settle(config, device=world.device)
        jobs = [config := hardware.config]
        if config.control:
            jobs.append(replace(config, objective="sft", control=False, out=str(Path(config.out) / "control")))
        with ExitStack() as locks:  # the lock of OUT is kept while its control trains
            for job in jobs:
                out, identity = Path(job.out), _identity(job, cache)
                if not is_finished(out, identity, say=say):
                    locks.enter_context(locked(out, world, say=say))
                    if not is_finished(out, identity, say=_say_nothing):  # else another process just ended
                        handover = _train(
                            identity, cache, handover, world=world, hardware=hardware, command=command, say=say
                        )
                        world.wait()
                        continue
                say(f"{out}: finished earlier, nothing to do; name another --out for another run")
                handover = of_record(read_record(out))


def _identity(config: Config, cache: shards.Cache | None) -> Identity:
    """Return what makes a run this one. Of a cache of which nothing is there yet, the teacher is not known."""
    growing = open_live(config.shards) if cache is None else None
    there = growing.cache if growing is not None else cache
    return Identity(
        config=config,
        manifest_sha256=None if cache is None else cache.manifest_sha256,
        base_sha256=None if there is None else known_base_sha256(config.student, there.manifest.teacher),
    )


def _say_nothing(line: str) -> None:
    """Leave the speaking to the first rank."""


def _train(
    identity: Identity,
    cache: shards.Cache | None,
    handover: Handover,
    *,
    world: World,
    hardware: Hardware,
    command: list[str],
    say: Say,
) -> Handover:
    """Do one run; return what it hands over to its control. `cache` is None where it grows."""
    config = identity.config
    out = Path(config.out)
    if world.leads:
        checkpoint.remove_incomplete(out)
    state = newest_state(out, identity, leads=world.leads, say=say)
    is_control = handover.before is not None
    if state is not None:
        config, handover = settings_of(config, state), of_state(state)
    teacher = handover.teacher_completions

    def on_teacher(model: Any, *, tokenizer_dir: Path) -> None:
        nonlocal teacher
        if world.leads and state is None and config.objective == "kd":
            say("completing three prompts with the teacher, for the report")
            teacher = try_to_complete(model, tokenizer_dir, say=say)

    with stop_on_signals() as wanted:
        this = prepare(
            config, cache, handover.segments, wanted, world, say, layers=handover.layers, on_teacher=on_teacher
        )
        _announce(this, state, hardware, is_control=is_control)
        before = handover.before
        if state is None:
            if this.segments is None:
                require_trainable(config, this.first_leg, this.batches)
            before = before or _score(this, "held-out, before")
            state = {"step": 0, "tokens": 0, "seconds": 0.0}
            if (objective_state := this.objective.initial_state()) is not None:
                state |= asdict(objective_state)
        else:
            checkpoint.load(out, step=state["step"], model=this.student.model, optimizer=this.optimizer, world=world)
        handover = Handover(
            segments=this.segments.written if this.segments else [],
            layers=this.student.layer_choice,
            before=before,
            teacher_completions=teacher,
        )
        state |= {
            "manifest_sha256": "" if cache is None else cache.manifest_sha256,
            "config": config.as_dict(),
            "base_sha256": identity.base_sha256 or base_sha256(config.student, this.first_leg.cache.manifest.teacher),
            **handover.as_state(),
        }
        _loop(this, state)
        require_trained(out, state)
        model, after = export_and_score(this, partial(_score, title="held-out, after"))
        record = _record(this, state, handover.before or [], after, command, hardware)
        if world.leads:
            _finish(this, model, record, handover, after, say=say)
    return handover


def _announce(this: Run, state: dict[str, Any] | None, hardware: Hardware, *, is_control: bool) -> None:
    """Say what is trained, from which step, and on what; a control leaves out what its run has said."""
    teacher = this.first_leg.cache.manifest.teacher
    if teacher.restricts_outputs and not is_control:
        this.say(f"note: the teacher's licence is {licence_line(asdict(teacher))}")
    if state is None:
        this.say(f"{this.out}: {describe(this.config, this.student, this.objective, this.total, this.first_leg.plan)}")
    else:
        this.say(f"{this.out}: continuing at step {state['step']} of {this.total}")
    if not is_control:
        for line in lines_for(hardware, device=this.world.device):
            this.say(f"{this.out}: {line}")


def _record(
    this: Run,
    state: dict[str, Any],
    before: list[RowScore],
    after: list[RowScore],
    command: list[str],
    hardware: Hardware,
) -> dict[str, Any]:
    return run_record(
        config=this.config,
        cache=this.segments.cache if this.segments else this.first_leg.cache,
        student=this.student,
        state=state,
        held_out=held_out_record(this.objective, before, after),
        command=command,
        hardware=hardware,
    )


def _finish(
    this: Run,
    model: Any,
    record: dict[str, Any],
    handover: Handover,
    after: list[RowScore],
    *,
    say: Say,
) -> None:
    """Write what the run leaves: the model, its completions, the held-out rows, and last the record."""
    out = this.out
    say(f"{out}: writing the student")
    export.export(out, model=model, tokenizer_dir=this.student.tokenizer_dir, dtype=this.config.export_dtype)
    if (texts := try_to_complete(model, this.student.tokenizer_dir, say=say)) is not None:
        is_teacher = this.config.objective == "kd"
        completions.write(out, student=texts, teacher=handover.teacher_completions if is_teacher else None)
    text = "".join(json.dumps(line) + "\n" for line in lines(after, handover.before or [], this.objective.measures))
    checkpoint.write_text(out / "held_out.jsonl", text)
    checkpoint.write_text(out / "run.json", json.dumps(record, indent=1) + "\n")
    say(result_line(out, record))


def _loop(this: Run, state: dict[str, Any]) -> None:
    """Train from state["step"] to the end, updating `state`, saving as asked and at the end."""
    config = this.config
    this.distiller.train()
    first = state["step"]
    with (
        open_log(config, first, boards=this.world.leads, say=this.say) as log,
        Progress("training", this.total, say=this.say, first=first, shown=config.progress and this.world.leads) as bar,
    ):
        for leg in _legs(this, state):
            if leg is None:
                raise interrupted(this.out, state["step"], this.total)
            with Stream(
                leg.cache,
                leg.plan,
                this.batches,
                first=max(state["step"], leg.plan.first_step),
                last=leg.last,
                prefetch=config.prefetch,
                rank=this.world.rank,
                world_size=this.world.size,
            ) as steps:
                started = time.perf_counter()
                for step in steps:
                    _one_step(this, step, state, started, log=log, bar=bar)
                    started = time.perf_counter()


def _legs(this: Run, state: dict[str, Any]) -> Iterator[Leg | None]:
    """Yield the legs that are not over yet; see `Segments.legs`."""
    if this.segments is None:
        yield this.first_leg
        return
    for leg in this.segments.legs(total=this.total, before_waiting=lambda: _save(this, state)):
        if leg is None or leg.last > state["step"]:
            yield leg


def _save(this: Run, state: dict[str, Any]) -> None:
    config = this.config
    checkpoint.save(
        this.out, model=this.student.model, optimizer=this.optimizer, state=state, keep=config.keep, world=this.world
    )


def _one_step(this: Run, step: Step, state: dict[str, Any], started: float, *, log: Log, bar: Progress) -> None:
    """Take a step that was waited for since `started`; log it, and save and measure where it is time to."""
    config = this.config
    # Dropout, where a student has any: seeded by the step, so a continued run draws the same.
    torch.manual_seed(config.seed * 1_000_003 + step.number)
    lr = learning_rate(config, step=step.number, total=this.total)
    objective_state = None
    if "norms" in state:
        objective_state = ObjectiveState(norms=state["norms"], left_out=state["left_out"])
    weights = this.objective.weights(objective_state)
    result = take_step(
        this.distiller,
        this.optimizer,
        step.batches,
        number=step.number + 1,
        lr=lr,
        clip=config.clip,
        world=this.world,
        stop=this.wanted.stop,
        weights=weights,
        measure=this.objective.measures_norms(step.number),
    )
    took = time.perf_counter() - started
    state["step"] = step.number + 1
    state["tokens"] += result.positions
    next_state = this.objective.next_state(objective_state, norms=result.norms, left_out=result.left_out)
    if next_state is not None:
        state |= asdict(next_state)
    state["seconds"] += took
    if this.world.leads and result.positions:
        log.write("metrics.jsonl", _metrics(this, result, state, lr=lr, took=took, weights=weights))
    if result.positions == 0:
        count_empty(this.out, state, say=this.say)
    bar.advance(steps=1, tokens=result.positions, note=f"loss {result.loss:.4f}" if result.positions else "nothing")
    last = state["step"] == this.total
    if last or result.stop or (config.save_every and state["step"] % config.save_every == 0):
        _save(this, state)
    if result.stop and not last:
        raise interrupted(this.out, state["step"], this.total)
    if config.eval_every and state["step"] % config.eval_every == 0 and not last:
        means = {k: v["mean"] for k, v in (summary(_score(this, "held-out"), this.objective.measures) or {}).items()}
        if this.world.leads:
            log.write("held_out_curve.jsonl", {"step": state["step"], **means}, prefix="held_out/")
        this.distiller.train()


def _metrics(
    this: Run, result: StepResult, state: dict[str, Any], *, lr: float, took: float, weights: dict[str, float]
) -> dict[str, Any]:
    """Return the line of metrics.jsonl of one step that took `took` seconds."""
    return {
        "step": state["step"],
        "loss": result.loss,
        **this.objective.metrics(result.means, weights),
        "lr": lr,
        "tokens": state["tokens"],
        "tokens_per_s": result.positions / took,
    }


def _score(this: Run, title: str) -> list[RowScore]:
    this.distiller.eval()
    total = sum(batch.num_positions for batch in this.held_out.batches(this.world))
    shown = this.config.progress and total > 0 and this.world.leads
    with Progress(title, total, say=this.say, unit="tokens", shown=shown) as bar:

        def on_tokens(tokens: int) -> None:
            bar.advance(steps=tokens, tokens=tokens)
            if this.wanted.stop:
                found = checkpoint.steps(this.out)
                raise interrupted(this.out, found[-1] if found else 0, this.total)

        def scorer(batch: Batch) -> Any:
            return this.distiller(batch.to(this.world.device), None)

        return score(this.held_out, scorer, world=this.world, on_tokens=on_tokens)

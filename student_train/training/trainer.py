"""Train a student and its control, from opening the cache to the record of the run.

OUT becomes an ordinary transformers folder. `run.json` is written last, so its presence means that the run is finished.
Everything between two checkpoints is a pure function of the first of them and the configuration. A run that was killed
and resumed therefore ends in the same bits as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import shards
from shards.live import open_live
from shards.reports.summary import licence_line
from shards.storage.atomic import write_atomic
from student_train.config import Config
from student_train.data.chat_template import StudentTemplate
from student_train.data.mixture import Mixture, open_mixture
from student_train.errors import CheckpointError
from student_train.evaluation import completions
from student_train.evaluation.completions import SamplePrompts, try_to_complete
from student_train.evaluation.exported import export_and_score
from student_train.evaluation.held_out import set_lines
from student_train.evaluation.quantised import quantised_record
from student_train.evaluation.run_scores import score_run
from student_train.model.base import base_digests, known_base_digests
from student_train.model.quantization import rounding
from student_train.objectives.row_score import RowScore
from student_train.outputs import checkpoint, export, files
from student_train.outputs.lock import locked
from student_train.outputs.run_dir import Identity, damaged_record, is_finished, newest_state, read_record
from student_train.outputs.run_record import (
    cache_lines,
    describe,
    held_out_record,
    responses_line,
    result_line,
    run_record,
)
from student_train.outputs.weight_digest import exported_sha256, parameters_sha256
from student_train.training.build_run import build_run
from student_train.training.distributed import World, init_distributed
from student_train.training.hardware import Hardware, lines_for, settle
from student_train.training.loop import TrainingLoop
from student_train.training.run_context import RunContext
from student_train.training.runtime import LogLine, Runtime, deterministic, log_nothing, log_to_stderr, stop_on_signals
from student_train.training.state import Handover, TrainState, settings_of
from student_train.training.trainable import require_trainable, require_trained


def run(
    config: Config, *, command: list[str], log: LogLine = log_to_stderr, segments: Sequence[dict[str, Any]] = ()
) -> None:
    """Train a student, and its control if asked for. What is finished already is left alone.

    Args:
        config: Settings of the run.
        command: Command line, for the record.
        log: Prints one line for people.
        segments: Segments of the record of a run that is repeated, where it followed a growing cache.

    Raises:
        TrainError: Something that a user can fix.
        shards.ShardError: The cache is damaged, incomplete or unreachable.
        Interrupted: A signal asked to stop; the state is saved.
    """
    mixture = open_mixture(config)
    handover = Handover(segments=list(segments))
    with deterministic(), init_distributed(config.device) as world:
        log = log if world.is_main else log_nothing
        hardware = settle(config, device=world.device, ranks=world.size)
        configs = [config := hardware.config]
        if config.control:
            out = str(Path(config.out) / "control")
            configs.append(replace(config, objective="sft", control=False, relations_weight=0.0, out=out))
        with ExitStack() as locks:  # the lock of OUT is kept while its control trains
            for each in configs:
                job = _Job(identity=_identity(each, mixture), hardware=hardware, command=command)
                handover = _train_unless_finished(job, handover, world, log, locks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One run to do: the student's or its control's."""

    identity: Identity
    hardware: Hardware
    command: list[str]

    @property
    def config(self) -> Config:
        return self.identity.config

    @property
    def mixture(self) -> Mixture:
        return self.identity.mixture

    @property
    def out(self) -> Path:
        return Path(self.config.out)


def _identity(config: Config, mixture: Mixture) -> Identity:
    """Return what makes a run this one. The teacher of a growing cache without shards is not known yet."""
    if not mixture.follows:
        readable: shards.Cache | None = mixture.caches[0]
    else:
        growing = open_live(config.sources[0].path)
        readable = None if growing is None else growing.cache
    return Identity(
        config=config,
        mixture=mixture,
        base=None if readable is None else known_base_digests(config.student, readable.manifest.teacher),
    )


def _train_unless_finished(job: _Job, handover: Handover, world: World, log: LogLine, locks: ExitStack) -> Handover:
    """Do a job under the lock of its folder; return what it hands over to the next one."""
    out = job.out
    if not is_finished(out, job.identity, log=log):
        locks.enter_context(locked(out, world, log=log))
        if not is_finished(out, job.identity, log=log_nothing):  # another process may have finished it meanwhile
            handover = _train(job, handover, world, log)
            world.barrier()
            return handover
    log(f"{out}: finished earlier, nothing to do; name another --out for another run")
    record = read_record(out)
    try:
        return Handover.from_record(record)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged_record(out) from error


class _TeacherCompletions:
    """Takes completions from the teacher's uncut model, while it is loaded to make the student."""

    def __init__(self, texts: list[str] | None, *, wanted: bool, log: LogLine) -> None:
        self.texts = texts
        self._wanted, self._log = wanted, log

    def __call__(self, model: Any, *, cache: shards.Cache, prompts: SamplePrompts) -> None:
        if self._wanted:
            self._log("completing three prompts with the teacher, for the report")
            folder = cache.tokenizer_dir
            template = StudentTemplate.load("the shards' teacher", folder) if prompts.messages else None
            self.texts = try_to_complete(model, folder, log=self._log, prompts=prompts, template=template)


def _train(job: _Job, handover: Handover, world: World, log: LogLine) -> Handover:
    """Do one run; return what it hands over to its control."""
    config, out = job.config, job.out
    if world.is_main:
        files.remove_incomplete(out)
    stored = newest_state(out, job.identity, is_main=world.is_main, log=log)
    is_control = handover.before is not None
    if stored is not None:
        config, handover = settings_of(config, stored), Handover.from_state(stored)
    wanted = world.is_main and stored is None and config.objective == "kd"
    teacher = _TeacherCompletions(handover.teacher_completions, wanted=wanted, log=log)
    with stop_on_signals() as signals:
        runtime = Runtime(world=world, signals=signals, log=log)
        context = build_run(config, job.mixture, handover, runtime, on_teacher=teacher)
        _announce(context, stored, job.hardware, is_control=is_control)
        handover = replace(handover, layers=context.student.layer_choice, teacher_completions=teacher.texts)
        state = _first_state(context, job, handover, stored)
        with rounding(context.student.model, config.quantize):
            state = TrainingLoop(context, state).run()
        require_trained(out, state)
        model, after = export_and_score(context)
        record = _record(context, state, after, job)
        if world.is_main:
            _finish(context, model, record, state.handover, after)
    return state.handover


def _announce(context: RunContext, stored: dict[str, Any] | None, hardware: Hardware, *, is_control: bool) -> None:
    """Log what is trained, from which step, and on what; a control leaves out what its run has logged."""
    teachers = [cache.manifest.teacher for cache in context.first_leg.caches]
    for teacher in dict.fromkeys(teacher for teacher in teachers if teacher.restricts_outputs):
        if not is_control:
            context.log(f"note: the teacher's licence is {licence_line(asdict(teacher))}")
    if stored is None:
        context.log(f"{context.out}: {describe(context)}")
        for line in cache_lines(context):
            context.log(f"{context.out}: {line}")
        if line := responses_line(context):
            context.log(f"{context.out}: {line}")
    else:
        context.log(f"{context.out}: continuing at step {stored['step']} of {context.total_steps}")
    if not is_control:
        for line in lines_for(hardware, device=context.world.device):
            context.log(f"{context.out}: {line}")


def _first_state(context: RunContext, job: _Job, handover: Handover, stored: dict[str, Any] | None) -> TrainState:
    """Return the state to train from: that of a checkpoint, which is loaded, or a fresh one, which is evaluated."""
    config = context.config
    if stored is None:
        if context.segments is None:
            require_trainable(context)
        handover = replace(handover, before=handover.before or score_run(context, "held-out, before", step=0))
    else:
        _require_same_held_out(context, handover.before or [])
        checkpoint.load(
            context.out,
            step=stored["step"],
            model=context.student.model,
            optimizer=context.optimizer,
            world=context.world,
        )
    mixture, teacher = job.mixture, context.first_leg.caches[0].manifest.teacher
    state = TrainState(
        config=config.to_dict(),
        manifest_sha256=mixture.sha256,
        caches=mixture.entries if len(mixture.entries) > 1 else [],
        base=job.identity.base or base_digests(config.student, teacher),
        handover=replace(handover, segments=context.written_segments()),
        objective=context.objective.initial_state(),
    )
    if stored is not None:
        return state.resume(stored)
    return replace(state, weights={"0": parameters_sha256(context.student.model, world=context.world)})


def _require_same_held_out(context: RunContext, before: list[RowScore]) -> None:
    """Check that the rows that were scored before training are those of this attempt."""
    held_out = [(row.rows[0].document, row.rows[0].window) for each in context.held_out for row in each.rows]
    if [(row.document, row.window) for row in before] != held_out:
        raise CheckpointError(
            f"{context.out}: found a run that held out {len(before)} rows, expected {len(held_out)} others, as this "
            "release chooses them; resume it with the release that began it, or name another --out"
        )


def _record(context: RunContext, state: TrainState, after: list[RowScore], job: _Job) -> dict[str, Any]:
    return run_record(
        context=context,
        state=state,
        held_out=held_out_record(context, state.handover.before or [], after),
        command=job.command,
        hardware=job.hardware,
    )


def _finish(context: RunContext, model: Any, record: dict[str, Any], handover: Handover, after: list[RowScore]) -> None:
    """Write the results of a run: the model, its completions, the held-out rows, and last the record."""
    out, tokenizer_dir, template = context.out, context.student.tokenizer_dir, context.chat_template()
    context.log(f"{out}: writing the student")
    dtype = context.config.export_dtype
    export.export(out, model=model, tokenizer_dir=tokenizer_dir, dtype=dtype, template=template)
    prompts = context.prompts
    texts = try_to_complete(model, tokenizer_dir, log=context.log, prompts=prompts, template=template)
    if texts is not None:
        teacher = handover.teacher_completions if context.config.objective == "kd" else None
        completions.write(out, student=texts, teacher=teacher, prompts=prompts)
    rows = set_lines(after, handover.before or [], context.held_out)
    if context.config.quantize:
        record["quantized"] = quantised_record(context)
    write_atomic(out / "held_out.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    record = {**record, "weights": {**record["weights"], "exported": exported_sha256(out)}}
    write_atomic(out / "run.json", (json.dumps(record, indent=1) + "\n").encode())
    context.log(result_line(out, record))

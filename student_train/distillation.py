"""Distil in a training loop of your own: `Distillation` streams the steps of a run and computes their losses.

`student-train` trains with the same parts, in the same order: caches, objective, batches and the counts of a step
(`training/`). Here the loop, the optimiser and the checkpoints are the caller's. No teacher and no matrix of positions
by vocabulary is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from shards.runtime import machine
from student_train.config import Config
from student_train.data.loader import Stream
from student_train.data.mixture import open_mixture
from student_train.data.segments import whole_leg
from student_train.errors import TrainError
from student_train.evaluation.exported import whole_model
from student_train.evaluation.held_out import score, summary
from student_train.losses.blockwise import LossOutput
from student_train.model.head import find_logit_map
from student_train.model.loading import loaded
from student_train.model.probe import device_of
from student_train.objectives.base import ObjectiveState
from student_train.objectives.choose import choose_objectives
from student_train.outputs.export import export
from student_train.training.distributed import joined_world
from student_train.training.learner import held_out_sets, make_learner, require_records
from student_train.training.run_context import template_of
from student_train.training.runtime import LogLine, log_nothing, log_to_stderr
from student_train.training.train_step import ScaledBatch, TrainStep, mean_norms, share_step

STATE_VERSION = 2
_KNOWN_VERSIONS = (1, STATE_VERSION)
"""Versions of states that are read. Version 1 had the norms as numbers by name, in place of the text `objective`."""
_OF_THE_COMMAND = ("follow", "student_layers", "control", "lora_rank", "quantize", "gradient_checkpointing", "compile")
"""Settings with which `student-train` changes the model or the run; they are refused here."""
_Result = TypeVar("_Result")


class Distillation:
    """A student and the caches that it learns from: the steps of a run, their losses, and the held-out measures.

    Data-parallel ranks share the rows of each step where torch.distributed is initialised. The order of rows, the
    held-out rows, the weights of the loss and the numbers that it is divided by are those of `student-train` with the
    same settings, on any number of ranks.

    Methods that say so are collectives: every rank has to call them.
    """

    def __init__(self, config: Config, model: Any, *, log: LogLine = log_to_stderr) -> None:
        """Open the caches and find how the student learns from them. A collective.

        The student's tokenizer decides the loss, as in `student-train`: a divergence per token where it is the shards'
        own, losses across tokenizers where it is another. A few short forward passes find out how rows may share a
        sequence.

        Args:
            config: Settings. `shards` names the caches, and `student` the folder or hub id with the student's
                tokenizer, from which `model` was loaded. Settings of the optimiser, of files and of the display have
                no effect here.
            model: transformers causal language model, on the device where it trains. Compile or shard it afterwards;
                its class and its parameters stay as they are.
            log: Called with lines for people, on the first rank.

        Raises:
            TrainError: Settings, student and caches do not fit together.
            shards.ShardError: A cache is damaged, incomplete or unreachable.
        """
        _require_own_loop(config)
        device = device_of(model)
        gpu = machine.gpu(torch) if device.type == "cuda" else None
        self.config = config = replace(config, dtype=machine.choose_dtype(config.dtype, gpu=gpu).dtype)
        """The settings, with `dtype` settled."""
        self.model = model
        """The student."""
        self._world = world = joined_world(device)
        log = log if world.is_main else log_nothing
        self._mixture = mixture = open_mixture(config)
        self._leg = whole_leg(config, mixture)
        require_records(config, mixture.caches)
        first = mixture.caches[0]
        self._student = loaded(
            config.student, model, teacher=first.manifest.teacher, shards_tokenizer=first.tokenizer_dir
        )
        chosen = choose_objectives(config, self._student, mixture.caches, device=device)
        self._objective = chosen.whole
        learner = make_learner(
            config, self._student, mixture.caches, chosen, logit_map=find_logit_map(model), world=world, log=log
        )
        self._distiller, self._batches = learner.distiller, learner.batches
        self._held_out = held_out_sets(config, mixture.caches, chosen, self._batches.packing, mixture=mixture, log=log)
        if self._objective.notice:
            log(self._objective.notice)
        self._next = 0
        self._state = self._objective.initial_state()
        self._norms: dict[str, float] = {}

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run: `max_steps`, or as many as `epochs` hold."""
        return self._leg.last

    @property
    def position(self) -> int:
        """Number of the step that `steps` yields next, from 0."""
        return self._next

    @property
    def description(self) -> str:
        """The loss in a few words."""
        return self._objective.description

    def steps(self, last: int | None = None) -> Iterator[TrainStep]:
        """Yield the optimiser steps from the position to the end. A thread reads ahead. A collective at each step.

        A step has this rank's batches, of at most `micro_tokens` tokens each where a row is no longer. Every rank has
        as many. Call `loss` on each, in order.

        Args:
            last: One past the last step; None for the end of the run.

        Raises:
            TrainError: The student cannot read a row.
            shards.ShardError: A chunk is damaged or unreachable.
        """
        leg, world, objective = self._leg, self._world, self._objective
        last = self.total_steps if last is None else last
        spread = {"rank": world.rank, "world_size": world.size, "prefetch": self.config.prefetch}
        with Stream(leg.caches, leg.plan, self._batches, first=self._next, last=last, **spread) as stream:
            for read in stream:
                weights, measure = objective.weights(self._state), objective.measures_norms(read.number)
                step = share_step(objective, read, world=world, weights=weights, measure_norms=measure)
                self._next, self._norms = read.number + 1, {}
                self._state = objective.next_state(self._state, norms={}, left_out=step.left_out)
                yield step

    def loss(self, batch: ScaledBatch, *, model: nn.Module | None = None) -> LossOutput:
        """Return the loss of a batch, which carries the gradient. A collective.

        Summed over the batches of a step and averaged over ranks, it is the loss of the step: the mean over all its
        positions, whatever their share on a rank. Gradients averaged over ranks, as DDP and FSDP average them, are
        therefore right. Do not divide by a number of batches.

        Args:
            batch: A batch of the step that `steps` yielded last.
            model: The wrapper through which the student has to be called, such as that of DDP; None for the student
                itself. FSDP2 needs no wrapper.

        Returns:
            `loss`, a float32 scalar, and `terms`, the terms of each part, unscaled and without gradient.
        """
        moved = batch.batch.to(self._world.device)
        outputs: list[LossOutput] = []

        def forward() -> torch.Tensor:
            outputs.append(self._distiller(moved, batch.scale, batch.measure_norms))
            return outputs[0].loss * self._world.size

        loss = self._call(model, forward)
        self._norms |= outputs[0].norms or {}
        if batch.is_last and self._objective.measures_norms(self._next - 1):
            norms = mean_norms(self._world.gather(self._norms))
            self._state = self._objective.next_state(self._state, norms=norms, left_out={})
        return replace(outputs[0], loss=loss)

    def evaluate(self, *, model: nn.Module | None = None) -> dict[str, float]:
        """Return the student's measures on the held-out rows; {} where none are held out. A collective.

        With one tokenizer these are `kl` (nats per token), `bits_per_byte`, `top1_agreement` and
        `calibration_error`; they are those of `run.json`. The model's mode is restored.

        Args:
            model: As in `loss`.
        """
        device, was_training = self._world.device, self.model.training
        self.model.eval()
        try:
            rows = [
                row
                for each in self._held_out
                for row in score(
                    each,
                    lambda batch: self._call(model, lambda: self._distiller(batch.to(device), None)),
                    world=self._world,
                )
            ]
        finally:
            self.model.train(was_training)
        figures = summary(rows, self._objective.measures) or {}
        return {name: figure["mean"] for name, figure in figures.items()}

    def save(self, out: str | Path) -> None:
        """Write the student as a transformers folder, with tokenizer and chat template, as `student-train` does.

        A collective. Weights are those of all ranks, in the type `export_dtype`, to which a model that is not sharded
        is converted.

        Args:
            out: The folder. Files of a student in it are replaced.

        Raises:
            CheckpointError: The disk is full.
        """
        config, student = self.config, self._student
        model = whole_model(student, self._world)
        if self._world.is_main:
            Path(out).mkdir(parents=True, exist_ok=True)
            template = template_of(config, student, self._mixture.caches)
            folder, dtype = student.tokenizer_dir, config.export_dtype
            export(Path(out), model=model, tokenizer_dir=folder, dtype=dtype, template=template)
        self._world.barrier()

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what weighs the loss, as JSON can hold it. The same on every rank.

        Take it after the update of a step. It does not depend on the number of ranks, which may change. Its keys are
        the same at every step, as torch.distributed.checkpoint loads the keys that a fresh object has: what the loss
        has measured so far is one text.
        """
        state = {"version": STATE_VERSION, "step": self._next, "order": self._order()}
        return state if self._state is None else {**state, "objective": json.dumps(asdict(self._state))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a stored position. `steps` has to be called after it.

        Raises:
            TrainError: It is the position in another order: caches, seed, batch size or held-out share differ.
        """
        if state.get("version") not in _KNOWN_VERSIONS:
            raise TrainError(
                f"state: found version {state.get('version')}, expected {STATE_VERSION}; use the version of "
                "teacherless that wrote it"
            )
        for name, value in self._order().items():
            if state["order"].get(name) != value:
                raise TrainError(
                    f"state: found {name} {state['order'].get(name)}, expected {value}, as a position counts in one "
                    "order of rows; use the settings of the run that wrote it, or begin at step 0"
                )
        self._next = int(state["step"])
        if "objective" in state:
            self._state = ObjectiveState(**json.loads(state["objective"]))
        elif "norms" in state:
            self._state = ObjectiveState(norms=dict(state["norms"]), left_out=dict(state["left_out"]))

    def _order(self) -> dict[str, Any]:
        """Return what the order of rows is a function of."""
        config = self.config
        return {
            "shards": self._mixture.sha256,
            "seed": config.seed,
            "batch_tokens": config.batch_tokens,
            "held_out": config.held_out,
        }

    def _call(self, wrapper: nn.Module | None, function: Callable[[], _Result]) -> _Result:
        """Return the result of a function that runs in place of the model's forward pass.

        Wrappers and FSDP2's hooks gather parameters for a forward call and watch its result, so the loss has to be
        computed inside one.
        """
        with _forward_replaced(self.model, function):
            result: _Result = (self.model if wrapper is None else wrapper)()
        return result


@contextmanager
def _forward_replaced(model: Any, function: Callable[[], Any]) -> Iterator[None]:
    own = model.__dict__.get("forward")
    model.forward = lambda *_args, **_named: function()
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


def _require_own_loop(config: Config) -> None:
    """Refuse settings that only the loop of `student-train` follows."""
    if not config.student:
        raise TrainError("student: found none, expected the folder or hub id that the model was loaded from")
    standard = Config()
    for name in _OF_THE_COMMAND:
        if (value := getattr(config, name)) != getattr(standard, name):
            raise TrainError(
                f"{name} is {value}: student-train does this to the model or the run itself, and here both are yours; "
                "leave it out, or use the command"
            )

"""The training loop: take steps, log them, save checkpoints, evaluate, stop on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from student_train.data.loader import Step, Stream
from student_train.data.segments import Leg
from student_train.errors import Interrupted
from student_train.evaluation.held_out import by_set, summary
from student_train.evaluation.intervals import Interval
from student_train.evaluation.run_scores import score_run
from student_train.outputs import checkpoint
from student_train.outputs.metrics import MetricsLog, open_metrics
from student_train.outputs.progress import Progress
from student_train.outputs.weight_digest import parameters_sha256
from student_train.training.optimizer import learning_rate
from student_train.training.run_context import RunContext
from student_train.training.state import TrainState
from student_train.training.train_step import StepResult, UpdateSettings, take_step

_CURVE = "held_out_curve.jsonl"
"""File of the held-out figures while training."""


class TrainingLoop:
    """Trains from a state to the last step. `state` is that of the last step done."""

    def __init__(self, context: RunContext, state: TrainState) -> None:
        """Prepare to train.

        Args:
            context: The run.
            state: Where it starts; parameters and optimiser are those of this state.
        """
        self.context = context
        self.state = state

    def run(self) -> TrainState:
        """Train to the end, saving as the settings say and at the end. Return the last state. A collective.

        Raises:
            Interrupted: A rank was asked to stop; the state is saved.
            TrainError: A loss or a gradient is not finite, or a growing cache stays behind.
        """
        context, first = self.context, self.state.step
        config, is_main = context.config, context.world.is_main
        context.distiller.train()
        shown = config.progress and is_main
        with (
            open_metrics(config, first, boards=is_main, log=context.log) as metrics,
            Progress("training", context.total_steps, log=context.log, first=first, shown=shown) as progress,
        ):
            self._evaluate_if_missing(metrics)
            for leg in self._legs():
                if leg is None:
                    raise context.interrupted(self.state.step)
                with self._stream(leg) as steps:
                    started = time.perf_counter()
                    for step in steps:
                        self._step(step, started, metrics, progress)
                        started = time.perf_counter()
        return self.state

    def _legs(self) -> Iterator[Leg | None]:
        """Yield the legs that are not over yet; see `Segments.legs`."""
        context = self.context
        if context.segments is None:
            yield context.first_leg
            return
        for leg in context.segments.legs(total=context.total_steps, before_waiting=self._save):
            if leg is None or leg.last > self.state.step:
                yield leg

    def _stream(self, leg: Leg) -> Stream:
        context = self.context
        return Stream(
            leg.caches,
            leg.plan,
            context.batches,
            first=max(self.state.step, leg.plan.first_step),
            last=leg.last,
            prefetch=context.config.prefetch,
            rank=context.world.rank,
            world_size=context.world.size,
        )

    def _step(self, step: Step, started: float, metrics: MetricsLog, progress: Progress) -> None:
        """Take a step whose data was requested at `started`; log it, and save and evaluate where due."""
        context, config = self.context, self.context.config
        # Dropout is seeded by the step, so a resumed run draws the same.
        torch.manual_seed(config.seed * 1_000_003 + step.number)
        update = UpdateSettings(
            lr=learning_rate(config, step=step.number, total=context.total_steps),
            clip=config.clip,
            weights=context.objective.weights(self.state.objective),
            measure_norms=context.objective.measures_norms(step.number),
        )
        result = take_step(
            context.distiller,
            context.optimizer,
            step.batches,
            number=step.number + 1,
            update=update,
            world=context.world,
            stop=context.runtime.signals.stop,
            rows=step.rows,
        )
        seconds = time.perf_counter() - started
        self._advance(step, result, seconds)
        if context.world.is_main and result.positions:
            metrics.write("metrics.jsonl", self._metrics_line(result, update, seconds=seconds))
        note = f"loss {result.loss:.4f}" if result.positions else "no token to learn"
        progress.advance(steps=1, tokens=result.positions, note=note)
        is_last = self.state.step == context.total_steps
        if is_last or result.stop or _is_due(config.save_every, self.state.step):
            self._save()
        if is_last:
            return
        if result.stop:
            raise context.interrupted(self.state.step)
        if _is_due(config.eval_every, self.state.step):
            self._evaluate(metrics)

    def _advance(self, step: Step, result: StepResult, seconds: float) -> None:
        """Replace the state by that after a step; report the first step without a label."""
        before = self.state
        is_empty = result.positions == 0
        self.state = replace(
            before,
            step=step.number + 1,
            tokens=before.tokens + result.positions,
            seconds=before.seconds + seconds,
            empty_steps=before.empty_steps + is_empty,
            rows={name: before.rows.get(name, 0) + count for name, count in result.rows.items()},
            objective=self.context.objective.next_state(before.objective, norms=result.norms, left_out=result.left_out),
        )
        if is_empty and self.state.empty_steps == 1:
            self.context.log(
                f"{self.context.out}: step {self.state.step} has no token to learn (all rows held out or too short): "
                "nothing was updated; more such steps are counted in run.json as empty_steps"
            )

    def _metrics_line(self, result: StepResult, update: UpdateSettings, *, seconds: float) -> dict[str, Any]:
        """Return the line of `metrics.jsonl` of a step."""
        return {
            "step": self.state.step,
            "loss": result.loss,
            **self.context.objective.metrics(result.means, result.scale),
            "lr": update.lr,
            "tokens": self.state.tokens,
            "tokens_per_s": result.positions / seconds,
        }

    def _save(self) -> None:
        context = self.context
        digest = parameters_sha256(context.student.model, world=context.world)
        self.state = replace(
            self.state,
            handover=replace(self.state.handover, segments=context.written_segments()),
            weights={**self.state.weights, str(self.state.step): digest},
        )
        checkpoint.save(
            context.out,
            model=context.student.model,
            optimizer=context.optimizer,
            state=self.state.to_dict(),
            keep=context.config.keep,
            world=context.world,
        )

    def _evaluate_if_missing(self, metrics: MetricsLog) -> None:
        """Evaluate the student of a resumed run where it was stopped between a step and its evaluation."""
        context, step = self.context, self.state.step
        is_due = 0 < step < context.total_steps and _is_due(context.config.eval_every, step)
        if is_due and not context.world.gather(metrics.holds(_CURVE, step))[0]:
            self._evaluate(metrics)

    def _evaluate(self, metrics: MetricsLog) -> None:
        """Evaluate the student as it is; where asked to stop meanwhile, save it."""
        context = self.context
        try:
            scores = score_run(context, "held-out", step=self.state.step)
        except Interrupted:
            self._save()
            raise
        means = _means(summary(scores, context.objective.measures))
        if len(context.held_out) > 1:
            parts = zip(by_set(scores, context.held_out), context.held_out, strict=True)
            for number, (rows, each) in enumerate(parts, 1):
                own = _means(summary(rows, each.objective.measures))
                means |= {f"{name}/{number}": mean for name, mean in own.items()}
        if context.world.is_main:
            metrics.write(_CURVE, {"step": self.state.step, **means}, prefix="held_out/")
        context.distiller.train()


def _means(figures: dict[str, Interval] | None) -> dict[str, float]:
    return {name: figure["mean"] for name, figure in (figures or {}).items()}


def _is_due(every: int, step: int) -> bool:
    """Return whether something that happens every so many steps (0: never) happens after `step`."""
    return every > 0 and step % every == 0

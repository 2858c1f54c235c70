"""A student and its objective as one module.

Wrappers that split parameters (FSDP) gather them for one forward call, so the loss is computed inside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from shards.errors import first_line
from shards.format.relations import KINDS
from student_train.data.layout import PackingLayout, choose_layout, inputs_of
from student_train.data.packing import Batch
from student_train.errors import StudentError
from student_train.losses.blockwise import LossOutput, Projection
from student_train.model.head import PLAIN, LogitMap
from student_train.model.loading import Student
from student_train.model.probe import last_hidden
from student_train.objectives.attention_vectors import recorded_vectors
from student_train.objectives.base import LossScale, Objective, StudentOutput


def layout_on(device: torch.device, student: Student, objective: Objective) -> PackingLayout:
    """Move a student to a device, and return how the rows of an objective share a sequence there.

    Raises:
        StudentError: The model does not move, is not causal, or does not run on text.
    """
    try:
        model = student.model.to(device)
    except ValueError as error:  # transformers' answer for some quantised weights
        raise StudentError(
            f"model {student.source}: found weights that do not move to {device} ({first_line(error)}), expected ones "
            "that do; update the package that quantised them, or evaluate a dequantised copy"
        ) from None
    return choose_layout(model, longest=objective.longest_row, context=student.max_row_tokens)


class Distiller(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """A causal language model whose forward pass ends in a loss or in scores instead of logits."""

    def __init__(
        self, model: Any, objective: Objective, *, dtype: str, layout: str = "mask", logit_map: LogitMap = PLAIN
    ) -> None:
        """Wrap a model.

        Args:
            model: transformers causal language model.
            objective: What the model learns.
            dtype: Type of the forward pass: float32 or bfloat16.
            layout: How rows share a sequence, one of `data.packing.LAYOUTS`.
            logit_map: What the model does to its logits after the output projection.
        """
        super().__init__()
        self.objective = objective
        self.layout = layout
        self.logit_map = logit_map
        self.model = model
        self.compute_dtype = getattr(torch, dtype)

    def with_model(self, model: Any) -> Distiller:
        """Return the same objective for another model of the student's class."""
        return Distiller(
            model,
            self.objective,
            dtype=str(self.compute_dtype).removeprefix("torch."),
            layout=self.layout,
            logit_map=self.logit_map,
        )

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return the hidden states that the output projection reads [B * T, H]."""
        device_type = batch.tokens_BT.device.type
        mixed = self.compute_dtype != torch.float32
        inputs = inputs_of(
            self.model,
            position_ids_BT=batch.position_ids_BT,
            attention_mask_B1TT=batch.attention_mask_B1TT,
            layout=self.layout,
        )
        with torch.autocast(device_type, dtype=self.compute_dtype if mixed else None, enabled=mixed):
            hidden = last_hidden(self.model, batch.tokens_BT, **inputs)
        return hidden.flatten(0, 1)

    def forward(self, batch: Batch, scale: LossScale | None, measure: bool = False) -> LossOutput | Any:
        """Return the loss of a batch; without a scale, its held-out scores.

        Args:
            batch: A batch that the objective made, on the model's device.
            scale: How terms become one number; None to score instead.
            measure: Whether gradient norms of the parts are measured, too.
        """
        if scale is None:
            with torch.no_grad():
                return self.objective.scores(self._output(batch), batch)
        with recorded_vectors(self.model, self.objective.relations_layer) as states:
            output = self._output(batch)
        attention_NW = tuple(states[kind].flatten(0, 1) for kind in KINDS if kind in states)
        return self.objective.loss(replace(output, attention_NW=attention_NW), batch, scale, measure=measure)

    def _output(self, batch: Batch) -> StudentOutput:
        head = self.model.get_output_embeddings()
        projection = Projection(head.weight, head.bias, self.compute_dtype, self.logit_map)
        return StudentOutput(hidden_NH=self.hidden(batch), projection=projection)

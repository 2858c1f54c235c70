"""The model and its fused loss as one module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from student_train.cross_tokenizer.fused_linear import CrossScores, cross_loss, cross_scores, gradient_norms
from student_train.cross_tokenizer.targets import CrossTargets
from student_train.cross_tokenizer.terms import IdOrder
from student_train.data.layout import inputs_of
from student_train.data.packing import Batch
from student_train.losses.blockwise import LossOutput, Projection
from student_train.losses.fused_linear import LossSpec, Scores, fused_loss, fused_scores
from student_train.model.head import PLAIN, LogitMap
from student_train.model.probe import last_hidden


class Distiller(nn.Module):
    """A causal language model whose forward pass ends in a loss instead of logits."""

    def __init__(
        self,
        model: Any,
        spec: LossSpec,
        *,
        dtype: str,
        order: IdOrder | None = None,
        layout: str = "mask",
        logit_map: LogitMap = PLAIN,
    ) -> None:
        super().__init__()
        self.order = order
        self.layout = layout
        self.logit_map = logit_map
        self.model = model
        self.spec = spec
        self.compute_dtype = getattr(torch, dtype)

    def over(self, model: Any) -> Distiller:
        """Return the same loss over another model of the student's class."""
        return Distiller(
            model,
            self.spec,
            dtype=str(self.compute_dtype).removeprefix("torch."),
            order=self.order,
            layout=self.layout,
            logit_map=self.logit_map,
        )

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the projection reads [B * T, H]."""
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

    def forward(
        self, batch: Batch, scale: float | dict[str, float] | None, measure: bool = False
    ) -> LossOutput | Scores | CrossScores:
        """Return the loss of a batch, times `scale`; without a scale, its scores.

        A batch of a student with another tokenizer has one scale for each part of the loss; with `measure` the norms
        of the parts' gradients come with it. One entry for all, as wrappers that split parameters gather them for this
        call only.
        """
        head = self.model.get_output_embeddings()
        projection = Projection(head.weight, head.bias, self.compute_dtype, self.logit_map)
        if isinstance(batch.targets, CrossTargets):
            return self._across(batch, batch.targets, projection, scale, measure)
        assert not isinstance(scale, dict)
        if scale is None:
            with torch.no_grad():
                return fused_scores(self.hidden(batch), projection, index_P=batch.index_P, targets=batch.targets)
        return fused_loss(
            self.hidden(batch),
            projection,
            index_P=batch.index_P,
            targets=batch.targets,
            spec=self.spec,
            scale=scale,
        )

    def _across(
        self, batch: Batch, targets: CrossTargets, projection: Projection, scales: Any, measure: bool
    ) -> LossOutput | CrossScores:
        assert self.order is not None
        where = {
            "index_P": batch.index_P,
            "targets": targets,
            "order": self.order,
        }
        if scales is None:
            with torch.no_grad():
                return cross_scores(self.hidden(batch), projection, **where)
        hidden = self.hidden(batch)
        out = cross_loss(hidden, projection, scales=scales, **where)
        if not measure:
            return out
        return replace(out, norms=gradient_norms(hidden, projection, parts=tuple(scales), **where))

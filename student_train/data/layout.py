"""Choose how rows share a sequence, by running a few rows packed and alone.

Whether rows may share a sequence depends on the model: one mask is wrong for layers with a sliding window, and
convolutions and recurrent states carry over from row to row under any mask. The choice is the first of
`packing.LAYOUTS` in which hidden states equal those of the rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from student_train.data.packing import LAYOUTS, Packing, arrange
from student_train.errors import StudentError
from student_train.model.parts import decoder_of
from student_train.model.probe import (
    MODEL_ERRORS,
    TOLERANCE,
    device_of,
    does_not_run,
    last_hidden,
    probing,
    random_ids,
    relative_difference,
    require_finite,
)

_LENGTHS = (29, 17, 23, 3)
"""Tokens of the rows of the probe."""
_LENGTH_DEPENDENT_ROPE = ("longrope", "dynamic")
"""Kinds of RoPE in which the longest row of a batch determines the encoding of all positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingLayout:
    """How rows share a sequence, and why."""

    name: str = "mask"
    """One of `packing.LAYOUTS`."""
    widest: int | None = None
    """Most tokens of a sequence that rows share; None without a limit."""
    reason: str = ""
    """Why rows share no sequence; "" where they do."""

    def packing(self, micro_tokens: int) -> Packing:
        """Return how rows are grouped into batches of at most `micro_tokens` tokens."""
        return Packing(micro_tokens=micro_tokens, layout=self.name, widest=self.widest)


def choose_layout(model: Any, *, longest: int | None = None, context: int | None = None) -> PackingLayout:
    """Return the fastest layout in which `model` computes each row as if it were alone.

    Args:
        model: transformers causal language model, on the device where it trains.
        longest: Tokens of the longest row; None where unknown.
        context: Most tokens that the model reads; None without a limit.

    Raises:
        StudentError: The model is not causal: tokens that follow a row change it. Or it does not run on text.
    """
    ids = random_ids(model, len(_LENGTHS), max(_LENGTHS))
    rows = [ids[i, :n].cpu().numpy() for i, n in enumerate(_LENGTHS)]
    with probing(model, longest=longest):
        alone = _hidden_alone(model, ids)
        differences = {name: _packed_difference(model, rows, alone, name) for name in LAYOUTS[:-1]}
    supported = {name: value for name, value in differences.items() if value is not None}
    name = next((name for name, value in supported.items() if value <= TOLERANCE), None)
    if name is None:
        raise StudentError(
            f"student: found a {type(model).__name__} whose hidden states change with the tokens that follow, by "
            f"{differences['padded'] or 0.0:.1e} of the largest, expected at most {TOLERANCE:.0e}; choose a causal "
            "model"
        )
    if _length_changes_positions(model, longest):
        return PackingLayout(
            name="single", reason="one row per forward pass: positions depend on the longest row (RoPE)"
        )
    if name == "padded":
        shared = [value for name, value in supported.items() if name != "padded"]
        why = f"they would change by {min(shared):.1e} of the largest hidden state" if shared else "it takes no mask"
        return PackingLayout(
            name=name, reason=f"one row per sequence: rows of a {type(model).__name__} share none, as {why}"
        )
    limits = [_mask_width(model), None if name == "mask" else context]
    return PackingLayout(name=name, widest=min((limit for limit in limits if limit is not None), default=None))


def _hidden_alone(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return the hidden states of each row by itself. Raises StudentError where the model does not run."""
    try:
        hidden = [last_hidden(model, ids[i : i + 1, :n])[0] for i, n in enumerate(_LENGTHS)]
    except MODEL_ERRORS as error:
        raise does_not_run(model, error) from None
    require_finite(model, torch.cat(hidden))
    return hidden


def _packed_difference(
    model: Any, rows: list[npt.NDArray[np.int64]], alone: list[torch.Tensor], layout: str
) -> float | None:
    """Return the difference of packed rows from rows alone; None where the model does not support the layout."""
    packed = arrange(rows, layout=layout, widest=_mask_width(model))
    device = device_of(model)
    position_ids_BT = None if packed.position_ids_BT is None else packed.position_ids_BT.to(device)
    attention_mask_B1TT = None if packed.attention_mask_B1TT is None else packed.attention_mask_B1TT.to(device)
    try:
        inputs = inputs_of(
            model, position_ids_BT=position_ids_BT, attention_mask_B1TT=attention_mask_B1TT, layout=layout
        )
        hidden = last_hidden(model, packed.tokens_BT.to(device), **inputs)
    except MODEL_ERRORS:
        return None
    flat = hidden.flatten(0, 1)
    pairs = zip(packed.starts.tolist(), alone, strict=True)
    return max(relative_difference(flat[start : start + len(row)], row) for start, row in pairs)


def inputs_of(
    model: Any, *, position_ids_BT: torch.Tensor | None, attention_mask_B1TT: torch.Tensor | None, layout: str
) -> dict[str, Any]:
    """Return the arguments of a forward pass beside token ids.

    Args:
        model: transformers causal language model.
        position_ids_BT: As in `packing.Batch`.
        attention_mask_B1TT: As in `packing.Batch`.
        layout: One of `packing.LAYOUTS`.
    """
    if layout == "masks" and position_ids_BT is not None:
        return {"position_ids": position_ids_BT, "attention_mask": _layer_masks(model, position_ids_BT)}
    named = {"position_ids": position_ids_BT, "attention_mask": attention_mask_B1TT}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _layer_masks(model: Any, position_ids_BT: torch.Tensor) -> Any:
    """Return transformers' masks, by kind of layer or one for all, of rows that begin where positions restart."""
    from transformers.masking_utils import create_masks_for_generate

    config = decoder_of(model).config
    # Only the shape, dtype and device of the embeddings are read.
    embeds = torch.empty(*position_ids_BT.shape, 1, device=position_ids_BT.device)
    return create_masks_for_generate(
        config, inputs_embeds=embeds, attention_mask=None, past_key_values=None, position_ids=position_ids_BT
    )


def _mask_width(model: Any) -> int | None:
    """Return the width of the mask buffers of a model (GPT-Neo, GPT-J); None where masks are made as needed."""
    square = [
        buffer.shape[-1]
        for buffer in model.buffers()
        if buffer.ndim >= 2 and buffer.shape[-1] == buffer.shape[-2] and buffer.dtype in (torch.bool, torch.uint8)
    ]
    return min(square, default=None)


def _length_changes_positions(model: Any, longest: int | None) -> bool:
    """Return whether the longest row of a batch decides how all positions are encoded (LongRoPE, dynamic NTK)."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer_kind = [value for value in rope.values() if isinstance(value, dict)]
    for parameters in (rope, *by_layer_kind):
        if parameters.get("rope_type") in _LENGTH_DEPENDENT_ROPE:
            trained = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
            if longest is None or longest > trained:
                return True
    return False

"""Pooler of the capturing models: hidden states in, packed records out. Imported in vLLM's workers only.

The pooler runs in the worker that holds the logits, on each scheduled part of a prefill. Only packed records are kept
between the parts and leave the worker.

Shapes: T scheduled tokens of all requests, R recorded ones of them, D width, P positions of a block, V vocabulary,
C columns of packed records.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.model_executor.layers.pooler.abstract import Pooler
from vllm.model_executor.layers.pooler.common import PoolingParamsUpdate

from teacher_dump.engines.records import RecordSpec, draw_offsets, whitespace_mask
from teacher_dump.engines.sparsify import sparsify


@dataclass(frozen=True, slots=True)
class PromptPart:
    """The part of a request's prompt that one engine step computes."""

    prompt: torch.Tensor
    """All token ids of the prompt, int64."""
    first: int
    """Index of the first computed token in the prompt."""
    count: int
    """Number of computed tokens."""
    key: dict[str, Any] | None
    """Document, window, context and seed of the draws; None in vLLM's profiling run."""

    @property
    def first_position(self) -> int:
        """Index of the token whose record is the first one of the prompt: the last token of the context."""
        return 0 if self.key is None else int(self.key["context"]) - 1

    @property
    def recorded(self) -> slice:
        """Tokens of the part that are recorded, counted from its first one. Those of the context before are not."""
        return slice(min(self.count, max(0, self.first_position - self.first)), self.count)


class RecordPooler(Pooler):  # type: ignore[misc]  # vLLM's class is untyped here
    """Takes the hidden states of a step and returns the packed records of each finished request."""

    def __init__(self, model: Any, settings: dict[str, Any], *, task: str) -> None:
        """Prepare the records of a model.

        Args:
            model: vLLM model with `compute_logits`. It is kept without becoming a submodule.
            settings: Those of `vllm._arguments`: spec, vocab_size, whitespace_ids.
            task: Pooling task that the requests name.
        """
        super().__init__()
        self._compute_logits = model.compute_logits
        self._task = task
        self._spec = RecordSpec(**{**settings["spec"], "temperatures": tuple(settings["spec"]["temperatures"])})
        self._vocab_size: int = settings["vocab_size"]
        self._whitespace_V = torch.from_numpy(whitespace_mask(self._vocab_size, settings["whitespace_ids"]))

    def get_supported_tasks(self) -> Set[Any]:
        """Return the pooling tasks, for vLLM."""
        return {self._task}

    def get_pooling_updates(self, task: Any) -> Any:
        """Request the token ids of the prompts."""
        return PoolingParamsUpdate(requires_token_ids=True)

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor | None]:
        """Return the packed records of each request that this step finishes, int32 [its positions, C], else None.

        Args:
            hidden_states: Hidden states of all scheduled tokens, [T, D].
            pooling_metadata: vLLM's description of the requests.
        """
        cursor = pooling_metadata.get_pooling_cursor()
        prompts = pooling_metadata.get_prompt_token_ids_cpu()
        keys = [params.extra_kwargs for params in pooling_metadata.pooling_params]
        counts = cursor.num_scheduled_tokens_cpu.tolist()
        firsts = [seen - count for seen, count in zip(cursor.seq_lens_cpu.tolist(), counts, strict=True)]
        parts = [PromptPart(*values) for values in zip(prompts, firsts, counts, keys, strict=True)]
        packed_RC = self._records(hidden_states, parts)
        lengths = [part.recorded.stop - part.recorded.start for part in parts]
        finished: list[torch.Tensor | None] = []
        requests = zip(
            pooling_metadata.pooling_states, packed_RC.split(lengths), firsts, cursor.get_finished_mask(), strict=True
        )
        for state, records_TC, first, is_finished in requests:
            if first == 0:  # a preempted request starts again with the state that it left
                state.clean()
            state.hidden_states_cache.append(records_TC)
            # The last position of a prompt has no label.
            finished.append(torch.cat(state.hidden_states_cache)[:-1] if is_finished else None)
            if is_finished:
                state.clean()
        return finished

    def _records(self, hidden_TD: torch.Tensor, parts: Sequence[PromptPart]) -> torch.Tensor:
        """Return the packed records of all recorded tokens of a step, int32 [R, C].

        Blocks of positions cross the ends of the parts: the output projection is efficient for many positions only.
        """
        device = hidden_TD.device
        self._whitespace_V = self._whitespace_V.to(device)
        labels_R, offsets_R = labels_and_offsets(parts, len(hidden_TD))
        hidden_RD = hidden_TD
        if any(part.recorded.start for part in parts):  # without a context, nothing is copied
            recorded_R = torch.from_numpy(recorded_tokens(parts))
            labels_R, offsets_R = labels_R[recorded_R], offsets_R[recorded_R]
            hidden_RD = hidden_TD[recorded_R.to(device)]
        labels_R, offsets_R = labels_R.to(device), offsets_R.to(device)
        step = self._spec.block_positions(self._vocab_size)
        blocks = [torch.empty(0, self._spec.columns, dtype=torch.int32, device=device)]
        for start in range(0, len(hidden_RD), step):
            block = slice(start, start + step)
            logits_PV = self._compute_logits(hidden_RD[block])[:, : self._vocab_size]
            records = sparsify(
                logits_PV, labels_R[block], offsets_R[block], spec=self._spec, whitespace_V=self._whitespace_V
            )
            blocks.append(records.pack())
        return torch.cat(blocks)


def recorded_tokens(parts: Sequence[PromptPart]) -> npt.NDArray[np.int64]:
    """Return the indices of the recorded tokens among the scheduled ones, int64 [R]."""
    starts = np.cumsum([0, *(part.count for part in parts)])
    return np.concatenate(
        [start + np.arange(p.recorded.start, p.recorded.stop) for p, start in zip(parts, starts, strict=False)]
    )


def labels_and_offsets(parts: Sequence[PromptPart], num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels, int64 [T], and the sampling offsets, float64 [T], of the scheduled tokens.

    Both are 0 at the last position of a prompt and at the padding of a step; offsets also before the first position.

    Args:
        parts: The scheduled parts, in the order of their tokens.
        num_tokens: Number of tokens of the step, T.
    """
    labels_T = torch.zeros(num_tokens, dtype=torch.int64)
    offsets_T = np.zeros(num_tokens)
    start = 0
    for part in parts:
        num_labels = min(part.count, len(part.prompt) - 1 - part.first)
        stop = part.first + num_labels
        labels_T[start : start + num_labels] = part.prompt[part.first + 1 : stop + 1]
        if part.key is not None:
            key, origin = part.key, part.first_position
            offsets = draw_offsets(key["document"], key["window"], key["seed"], len(part.prompt) - 1 - origin)
            begin = max(part.first, origin)
            if begin < stop:
                offsets_T[start + begin - part.first : start + num_labels] = offsets[begin - origin : stop - origin]
        start += part.count
    return labels_T, torch.from_numpy(offsets_T)

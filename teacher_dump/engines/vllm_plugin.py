"""vLLM plugin: the teacher as a pooling model whose pooler makes sparse records.

The pooler runs in the worker that holds the logits, on each scheduled part of a prefill. Only packed records are kept
between the parts and leave the worker. vLLM is neither patched nor forked.

In `teacher_dump`, only this module uses vLLM's internal interfaces (vLLM 0.32): the entry point group
`vllm.general_plugins`, `ModelRegistry.register_model`, `Pooler`, `PoolingMetadata` with its cursor and states, and
`PoolingParams.extra_kwargs`. tests/teacher_dump/engines/test_vllm_plugin.py runs the real engine and shows which of
them an upgrade changed.

Shapes: T scheduled tokens of all requests, D width, P positions of a block, V vocabulary, C columns of packed records.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

PREFIX = "TeacherlessCapture"
"""Prefix of the name of a capturing architecture; the name of the stock architecture follows."""
TASK = "token_classify"
"""vLLM's pooling task that returns one vector per token."""
CONFIG_KEY = "teacherless"
"""Key of the record settings in vLLM's `additional_config`."""


def is_causal_name(architecture: str) -> bool:
    """Return whether the name of an architecture is that of a causal language model."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def register() -> None:
    """Register a capturing class for each causal language model of vLLM. vLLM calls it in each of its processes."""
    from vllm import ModelRegistry

    for name in list(ModelRegistry.get_supported_archs()):
        if is_causal_name(name) and not name.startswith(PREFIX):
            ModelRegistry.register_model(f"{PREFIX}{name}", f"{__name__}:{PREFIX}{name}")


def __getattr__(name: str) -> type:
    """Return a class that `register` announced, derived from the stock class at first use."""
    if not name.startswith(PREFIX):
        raise AttributeError(name)
    from vllm import ModelRegistry

    stock = ModelRegistry.models[name.removeprefix(PREFIX)].load_model_cls()
    capturing = _capturing_class(stock, name)
    globals()[name] = capturing
    return capturing


def _capturing_class(stock: Any, name: str) -> type:
    """Derive a pooling model from a class of a causal language model. It keeps the output projection."""

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        stock.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.pooler = _make_pooler(self, vllm_config.additional_config[CONFIG_KEY])

    return type(name, (stock,), {"__init__": __init__, "is_pooling_model": True, "__module__": __name__})


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of a request's prompt that one engine step computes."""

    prompt: Any
    """All token ids of the prompt, int64 tensor."""
    first: int
    """Index of the first computed token in the prompt."""
    count: int
    """Number of computed tokens."""
    key: dict[str, Any] | None
    """Document, window and seed of the draws; None in vLLM's profiling run."""


def _make_pooler(model: Any, settings: dict[str, Any]) -> Any:
    """Return the pooler of a model. `settings` are those of `vllm._arguments`."""
    import numpy as np
    import torch
    from vllm.model_executor.layers.pooler.abstract import Pooler
    from vllm.model_executor.layers.pooler.common import PoolingParamsUpdate

    from teacher_dump.engines.records import RecordSpec, draw_offsets, whitespace_mask
    from teacher_dump.engines.sparsify import sparsify

    spec = RecordSpec(**{**settings["spec"], "temperatures": tuple(settings["spec"]["temperatures"])})
    vocab_size: int = settings["vocab_size"]
    mask = torch.from_numpy(whitespace_mask(vocab_size, settings["whitespace_ids"]))
    step = spec.block_positions(vocab_size)

    class RecordPooler(Pooler):  # type: ignore[misc]  # vLLM is untyped
        """Takes the hidden states of a step and returns the packed records of each finished request."""

        def __init__(self) -> None:
            super().__init__()
            self._whitespace_V: torch.Tensor | None = None

        def get_supported_tasks(self) -> Set[Any]:
            return {TASK}

        def get_pooling_updates(self, task: Any) -> Any:
            return PoolingParamsUpdate(requires_token_ids=True)

        def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor | None]:
            cursor = pooling_metadata.get_pooling_cursor()
            prompts = pooling_metadata.get_prompt_token_ids_cpu()
            keys = [params.extra_kwargs for params in pooling_metadata.pooling_params]
            counts = cursor.num_scheduled_tokens_cpu.tolist()
            firsts = [seen - count for seen, count in zip(cursor.seq_lens_cpu.tolist(), counts, strict=True)]
            parts = [_Part(*values) for values in zip(prompts, firsts, counts, keys, strict=True)]
            packed_TC = self._records(hidden_states, parts)
            finished: list[torch.Tensor | None] = []
            per_request = zip(
                pooling_metadata.pooling_states,
                packed_TC.split(counts),
                firsts,
                cursor.get_finished_mask(),
                strict=True,
            )
            for state, records_TC, first, is_finished in per_request:
                if first == 0:  # a preempted request starts again with the state that it left
                    state.clean()
                state.hidden_states_cache.append(records_TC)
                # The last position of a prompt has no label.
                finished.append(torch.cat(state.hidden_states_cache)[:-1] if is_finished else None)
                if is_finished:
                    state.clean()
            return finished

        def _records(self, hidden_TD: torch.Tensor, parts: list[_Part]) -> torch.Tensor:
            """Return the packed records of all tokens of a step, int32 [T, C].

            Blocks of positions cross the ends of the parts, because the output projection is efficient for many
            positions at once only.
            """
            device = hidden_TD.device
            if self._whitespace_V is None:
                self._whitespace_V = mask.to(device)
            labels_T = torch.zeros(len(hidden_TD), dtype=torch.int64)
            offsets_T = np.zeros(len(hidden_TD))
            start = 0
            for part in parts:
                labelled = min(part.count, len(part.prompt) - 1 - part.first)
                stop = part.first + labelled
                labels_T[start : start + labelled] = part.prompt[part.first + 1 : stop + 1]
                if part.key is not None:
                    key = part.key
                    offsets = draw_offsets(key["document"], key["window"], key["seed"], len(part.prompt) - 1)
                    offsets_T[start : start + labelled] = offsets[part.first : stop]
                start += part.count
            labels_T, device_offsets_T = labels_T.to(device), torch.from_numpy(offsets_T).to(device)
            blocks = []
            for begin in range(0, len(hidden_TD), step):
                block = slice(begin, begin + step)
                logits_PV = model.compute_logits(hidden_TD[block])[:, :vocab_size]
                records = sparsify(
                    logits_PV, labels_T[block], device_offsets_T[block], spec=spec, whitespace_V=self._whitespace_V
                )
                blocks.append(records.pack())
            return torch.cat(blocks)

    return RecordPooler()

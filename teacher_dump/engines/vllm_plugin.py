"""A plugin of vLLM: the teacher as a pooling model whose pooler is our reduction.

The only file that touches vLLM's insides. It relies on: the entry point group `vllm.general_plugins`,
`ModelRegistry.register_model`, `Pooler`, `PoolingMetadata` with its cursor and states, and `PoolingParams.extra_kwargs`
(vLLM 0.32). tests/teacher_dump/engines/test_vllm_plugin.py says which of these an upgrade broke.

The pooler runs where the logits are, in the worker, on each chunk of a prefill; only packed records are kept between
chunks and leave the worker. No patch, no fork.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

PREFIX = "TeacherlessCapture"
"""Put before a stock architecture's name, it names the capturing one."""
TASK = "token_classify"


def is_causal_name(architecture: str) -> bool:
    """Return whether an architecture's name says that it is a causal language model."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def register() -> None:
    """Register a capturing twin of every causal LM that vLLM knows. Called by vLLM in each of its processes."""
    from vllm import ModelRegistry

    for name in list(ModelRegistry.get_supported_archs()):
        if is_causal_name(name) and not name.startswith(PREFIX):
            ModelRegistry.register_model(f"{PREFIX}{name}", f"{__name__}:{PREFIX}{name}")


def __getattr__(name: str) -> type:
    """Return the class that `register` promised, made from the stock one on first use."""
    if not name.startswith(PREFIX):
        raise AttributeError(name)
    from vllm import ModelRegistry

    stock = ModelRegistry.models[name.removeprefix(PREFIX)].load_model_cls()
    twin = _capturing(stock, name)
    globals()[name] = twin
    return twin


def _capturing(stock: type, name: str) -> type:
    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        stock.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.pooler = _make_pooler(self, vllm_config)

    # The pooler needs logits at every position, so the output projection stays.
    return type(name, (stock,), {"__init__": __init__, "is_pooling_model": True, "__module__": __name__})


def _make_pooler(model: Any, vllm_config: Any) -> Any:
    import numpy as np
    import torch
    from vllm.model_executor.layers.pooler.abstract import Pooler
    from vllm.model_executor.layers.pooler.common import PoolingParamsUpdate

    from teacher_dump.engines.records import RecordSpec, draw_offsets, whitespace_mask
    from teacher_dump.engines.sparsify import sparsify

    settings = vllm_config.additional_config["teacherless"]
    spec = RecordSpec(
        threshold=settings["threshold"],
        tail_floor=settings["tail_floor"],
        temperatures=tuple(settings["temperatures"]),
    )
    vocab_size: int = settings["vocab_size"]
    mask = whitespace_mask(vocab_size, settings["whitespace_ids"])
    step = spec.block_positions(vocab_size)

    class RecordPooler(Pooler):
        """Hidden states of a chunk in, packed records of a finished request out."""

        def __init__(self) -> None:
            super().__init__()
            self._whitespace: torch.Tensor | None = None

        def get_supported_tasks(self) -> Set[Any]:
            return {TASK}

        def get_pooling_updates(self, task: Any) -> Any:
            return PoolingParamsUpdate(requires_token_ids=True)

        def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor | None]:
            if self._whitespace is None:
                self._whitespace = torch.from_numpy(mask).to(hidden_states.device)
            cursor = pooling_metadata.get_pooling_cursor()
            prompts = pooling_metadata.get_prompt_token_ids_cpu()
            params = [p.extra_kwargs for p in pooling_metadata.pooling_params]
            counts = cursor.num_scheduled_tokens_cpu.tolist()
            firsts = [seen - count for seen, count in zip(cursor.seq_lens_cpu.tolist(), counts, strict=True)]
            packed_TC = self._records(hidden_states, list(zip(prompts, params, firsts, counts, strict=True)))
            output: list[torch.Tensor | None] = []
            chunks = zip(packed_TC.split(counts), firsts, cursor.get_finished_mask(), strict=True)
            for state, (chunk_TC, first, done) in zip(pooling_metadata.pooling_states, chunks, strict=True):
                if first == 0:  # a request that was preempted starts again in the same state
                    state.clean()
                state.hidden_states_cache.append(chunk_TC)
                # A prompt's last position predicts nothing.
                output.append(torch.cat(state.hidden_states_cache)[:-1] if done else None)
                if done:
                    state.clean()
            return output

        def _records(
            self, hidden_TD: torch.Tensor, chunks: list[tuple[torch.Tensor, dict[str, Any] | None, int, int]]
        ) -> torch.Tensor:
            """Return packed records [T, columns] of the chunks of all requests: (prompt, key, first, count) of each.

            In pieces that do not respect the chunks' ends: the projection wants many positions at once.
            """
            device = hidden_TD.device
            next_T = torch.zeros(len(hidden_TD), dtype=torch.int64)
            u_T = np.zeros(len(hidden_TD))
            start = 0
            for prompt, key, first, count in chunks:
                predicting = min(count, len(prompt) - 1 - first)
                next_T[start : start + predicting] = prompt[first + 1 : first + 1 + predicting]
                if key is not None:  # None in vLLM's profiling run
                    u = draw_offsets(key["document"], key["window"], key["seed"], len(prompt) - 1)
                    u_T[start : start + predicting] = u[first : first + predicting]
                start += count
            next_T, u_T = next_T.to(device), torch.from_numpy(u_T).to(device)
            pieces = []
            for i in range(0, len(hidden_TD), step):
                logits_PV = model.compute_logits(hidden_TD[i : i + step])[:, :vocab_size]
                piece = sparsify(
                    logits_PV, next_T[i : i + step], u_T[i : i + step], spec=spec, whitespace_V=self._whitespace
                )
                pieces.append(piece.pack())
            return torch.cat(pieces)

    return RecordPooler()

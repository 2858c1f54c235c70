"""How do records leave vLLM? A plugin: the teacher as a pooling model whose pooler is our reduction.

The only file that touches vLLM's insides. It relies on: the entry point group `vllm.general_plugins`,
`ModelRegistry.register_model`, `Pooler`, `PoolingMetadata` with its cursor and states, and `PoolingParams.extra_kwargs`
(vLLM 0.32). tests/teacher_dump/test_vllm.py says which of these an upgrade broke.

The pooler runs where the logits are, in the worker, on each chunk of a prefill; only packed records are kept between
chunks and leave the worker. No patch, no fork.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

PREFIX = "TeacherlessCapture"
"""Put before a stock architecture's name, it names the capturing one."""
TASK = "token_classify"


def register() -> None:
    """Register a capturing twin of every causal LM that vLLM knows. Called by vLLM in each of its processes."""
    from vllm import ModelRegistry

    for name in list(ModelRegistry.get_supported_archs()):
        if name.endswith("ForCausalLM") and not name.startswith(PREFIX):
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

    from teacher_dump.reduce import RecordSpec, offsets, reduce

    settings = vllm_config.additional_config["teacherless"]
    spec = RecordSpec(
        threshold=settings["threshold"],
        tail_floor=settings["tail_floor"],
        temperatures=tuple(settings["temperatures"]),
    )
    vocab_size: int = settings["vocab_size"]
    mask = np.zeros(vocab_size, np.float32)
    mask[settings["whitespace_ids"]] = 1
    step = spec.piece_positions(vocab_size)

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
            ids = pooling_metadata.get_prompt_token_ids_cpu()
            scheduled = cursor.num_scheduled_tokens_cpu.tolist()
            seen = cursor.seq_lens_cpu.tolist()
            output: list[torch.Tensor | None] = []
            chunks = torch.split(hidden_states, scheduled)
            for r, (hidden_TD, done) in enumerate(zip(chunks, cursor.get_finished_mask(), strict=True)):
                state = pooling_metadata.pooling_states[r]
                first = seen[r] - scheduled[r]
                if first == 0:  # a request that was preempted starts again in the same state
                    state.clean()
                params = pooling_metadata.pooling_params[r].extra_kwargs
                state.hidden_states_cache.extend(self._records(hidden_TD, ids[r], first, params))
                output.append(torch.cat(state.hidden_states_cache) if done else None)
                if done:
                    state.clean()
            return output

        def _records(
            self, hidden_TD: torch.Tensor, prompt_T: torch.Tensor, first: int, params: dict[str, Any] | None
        ) -> list[torch.Tensor]:
            """Return packed pieces for the positions of a chunk; a prompt's last position predicts nothing."""
            device = hidden_TD.device
            count = min(len(hidden_TD), len(prompt_T) - 1 - first)
            next_P = prompt_T[first + 1 : first + 1 + count].to(device=device, dtype=torch.int64)
            if params is None:  # vLLM's profiling run
                u_P = torch.zeros(count, dtype=torch.float64, device=device)
            else:
                u = offsets(params["document"], params["window"], params["seed"], len(prompt_T) - 1)
                u_P = torch.from_numpy(u[first : first + count]).to(device)
            pieces = []
            for i in range(0, count, step):
                j = min(i + step, count)
                logits_PV = model.compute_logits(hidden_TD[i:j])[:, :vocab_size]
                assert self._whitespace is not None
                pieces.append(reduce(logits_PV, next_P[i:j], u_P[i:j], spec=spec, whitespace_V=self._whitespace).pack())
            return pieces or [torch.empty(0, spec.columns, dtype=torch.int32, device=device)]

    return RecordPooler()

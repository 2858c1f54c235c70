"""Generation with vLLM: requests enter as slots become free, and answers leave as they finish.

Each answer is one request with its own seed: vLLM splits a request for n answers into n requests anyway, and shares
their prompt only through its prefix cache. So prefix caching is on for sampled answers. It is off for greedy ones:
they share no prompts, and caching can change them from run to run (vllm#15437).
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import threading
from collections.abc import Collection, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from evalkit.errors import EvalError
from evalkit.generation.base import EngineSettings, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.decoding import (
    PendingPrompt,
    PromptQueue,
    encode_prompts,
    end_ids,
    load_config,
    load_tokenizer,
    loading_error,
    make_answer,
    memory_advice,
)
from evalkit.tasks.presets import PromptProtocol
from shards.runtime import machine
from shards.runtime.lifetime import bind_children

_QUEUED_BATCHES = 2
"""Requests in vLLM, in batches: one that is generated and one that waits, so that no slot stays free."""


class VllmGenerationEngine:
    """Generates with vLLM. See `GenerationEngine` for the interface.

    vLLM is started by the first call of `generate`, with a context that fits its longest prompt, and started again for
    prompts that need a longer context.
    """

    def __init__(self, checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> None:
        self._checkpoint, self._protocol, self._settings = checkpoint, protocol, settings
        self._tokenizer: Any = None
        self._config: Any = None
        self._ends: list[int] = []
        self._llm: Any = None
        self._max_len = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut_down()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        """See `GenerationEngine.generate`.

        Raises:
            EvalError: vLLM ended while it generated, or see `GenerationEngine.generate`.
        """
        if self._tokenizer is None:
            self._tokenizer, self._config = load_tokenizer(self._checkpoint), load_config(self._checkpoint)
        ids = encode_prompts(self._checkpoint, self._tokenizer, prompts, self._config)
        self._start(longest_prompt=max(map(len, ids)) + (follow_ups.extra_tokens if follow_ups is not None else 0))
        queue = PromptQueue(
            prompts,
            ids,
            tokenizer=self._tokenizer,
            follow_ups=follow_ups,
            on_answer=on_answer,
            deterministic=self._settings.deterministic,
        )
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            self._run(queue, on_answer=on_answer, on_tokens=on_tokens)
        except EngineDeadError as error:
            raise EvalError(
                f"{self._checkpoint.source}: the engine ended during generation; the system may have killed it for "
                f"lack of memory: {memory_advice(self._settings)}"
            ) from error

    def _run(self, queue: PromptQueue, *, on_answer: OnAnswer, on_tokens: OnTokens) -> None:
        deterministic = self._settings.deterministic
        # Deterministic runs finish all requests of a batch before the next, so that each batch is the same every time.
        capacity = self._settings.batch_size * (1 if deterministic else _QUEUED_BATCHES)
        running: dict[str, PendingPrompt] = {}
        names = map(str, itertools.count())
        on_tokens(0)  # the model is loaded: the rate is measured from here
        while True:
            if not running or not deterministic:
                room = capacity - len(running)
                for pending in queue.take(room, max_len=self._max_len, is_idle=not running):
                    name = next(names)
                    params = self._sampling_params(pending.prompt, max_tokens=self._max_len - len(pending.ids))
                    self._llm.add_request(name, {"prompt_token_ids": pending.ids}, params)
                    running[name] = pending
            if not running:
                return
            for output in self._llm.step():
                (completion,) = output.outputs
                new_ids = list(completion.token_ids)
                on_tokens(len(new_ids))
                prompt, ids = running.pop(output.request_id)
                on_answer(make_answer(self._tokenizer, prompt, ids, new_ids, self._protocol, self._ends))

    def _start(self, *, longest_prompt: int) -> None:
        """Start vLLM unless it runs with a sufficient context."""
        import torch

        max_len = min(longest_prompt + self._protocol.max_new_tokens, self._config.max_position_embeddings)
        if self._llm is not None and max_len <= self._max_len:
            return
        self._shut_down()
        self._ends = end_ids(self._tokenizer, self._checkpoint)
        on_cpu = not torch.cuda.is_available()
        cache_tokens = max_len * self._settings.batch_size if on_cpu else None
        _set_environment(self._settings, self._config, cache_tokens=cache_tokens)
        children = set(multiprocessing.active_children())
        self._llm = _start_llm(self._checkpoint, self._protocol, self._settings, max_len=max_len, on_cpu=on_cpu)
        self._max_len = max_len
        _watch(self._llm, [process for process in multiprocessing.active_children() if process not in children])

    def _shut_down(self) -> None:
        if self._llm is not None:
            self._llm.engine_core.shutdown()
            self._llm = None

    def _sampling_params(self, prompt: Prompt, *, max_tokens: int) -> Any:
        """Return vLLM's settings of one answer, of at most `max_tokens` and the protocol's limit."""
        import torch
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        protocol = self._protocol
        temperature = protocol.temperature if prompt.temperature is None else prompt.temperature
        return SamplingParams(
            temperature=temperature,
            top_p=protocol.top_p if torch.cuda.is_available() else 1.0,  # on a CPU `TopPLogitsProcessor` does it
            max_tokens=min(prompt.max_new_tokens or protocol.max_new_tokens, max_tokens),
            stop=list(protocol.stop),
            stop_token_ids=self._ends,
            include_stop_str_in_output=True,
            seed=prompt.seed if temperature > 0 else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _start_llm(
    checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings, *, max_len: int, on_cpu: bool
) -> Any:
    from vllm import EngineArgs, LLMEngine

    cpu_only: dict[str, Any] = {
        "enforce_eager": True,  # compiling takes longer than it saves on a CPU
        # A prompt in two steps rewinds the seed's generator, which on a CPU ends the engine ("does not use offset").
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(2048, max_len),
        "logits_processors": ["evalkit.generation.top_p_vllm:TopPLogitsProcessor"],
        "additional_config": {"evalkit_top_p": protocol.top_p},
    }
    try:
        return LLMEngine.from_engine_args(
            EngineArgs(
                model=checkpoint.source,
                revision=checkpoint.revision,
                dtype=settings.dtype,
                max_model_len=max_len,
                max_num_seqs=settings.batch_size,
                enable_prefix_caching=protocol.temperature > 0 and not settings.deterministic,
                generation_config="vllm",  # sampling settings come from the protocol alone
                disable_log_stats=True,
                **(cpu_only if on_cpu else {}),
            )
        )
    except Exception as error:  # the engine fails in a process of its own and reports in many ways
        raise loading_error(checkpoint, "model", error) from error


def _watch(llm: Any, processes: Collection[BaseProcess]) -> None:
    """Make a step raise EngineDeadError when a process of the engine ends; vLLM itself would wait indefinitely."""
    from vllm.v1.engine.exceptions import EngineDeadError

    outputs = getattr(llm.engine_core, "outputs_queue", None)  # absent where the engine runs in this process
    if outputs is None or not processes:
        return

    def wait() -> None:
        connection.wait([process.sentinel for process in processes])
        outputs.put(EngineDeadError())

    threading.Thread(target=wait, name="engine-watch", daemon=True).start()


def _set_environment(settings: EngineSettings, config: Any, *, cache_tokens: int | None) -> None:
    """Set what vLLM reads only from the environment, unless the user has set it.

    Args:
        settings: Settings of the engine.
        config: The model's text configuration.
        cache_tokens: Tokens that the KV cache holds on a CPU; None on a GPU.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # spawned processes end with this one
    bind_children()
    if settings.deterministic:
        # With the engine in another process, a step would hold the requests that happened to have arrived.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if cache_tokens is not None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        value_bytes = 4 if settings.dtype == "float32" else 2
        cache_bytes = cache_tokens * config.num_hidden_layers * heads * width * 2 * value_bytes
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, math.ceil(min(cache_bytes, memory / 3) / 2**30))))
        # All cores generate: checking programs takes little time beside it.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", machine.vllm_binding())

"""Writing with vLLM: requests enter as slots become free, across tasks, and a task is complete with its last response.

Each response is one request with its own seed; vLLM shares the prompt of the samples through its prefix cache. The text
is decoded here, once per response. Which requests share a step depends on timing, so that a response that is written
again may differ in rounding, and from there on.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from shards.runtime import machine
from shards.runtime.lifetime import bind_children
from teacher_dump.engines.errors import CRASH_ERRORS, EngineLog, watch
from teacher_dump.engines.vllm import causal_architecture
from teacher_dump.engines.vllm_plugin import CONFIG_KEY, WRITER_PREFIX
from teacher_dump.model.model_folder import load_config
from teacher_dump.writing.engines.base import OnTokens, TaskRequests, TaskResponses, WriterConfig
from teacher_dump.writing.task import ResponseRequest, WritingTask, WrittenResponse

RUNNING = {"cpu": 64, "cuda": 256}
"""Most responses that are written at the same time."""
QUEUED = 2
"""Requests in vLLM per slot: one that runs and one that waits, so that no slot stays free."""
CLOSE_S = 2.0
"""Seconds that vLLM's processes have to end by themselves."""
_CPU_CACHE_SHARE = 0.3
"""Most of a machine's free memory that keys and values take on a CPU."""
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # `bind_children` ends spawned processes with this one
}
"""Settings that vLLM reads from the environment only. The user's own values have precedence."""


class VllmWriter:
    """A writer in vLLM, in processes on this machine.

    vLLM is started by the first task, with a context that fits every prompt that the model takes.

    Args:
        config: Settings of the engine.
        **options: More arguments of `vllm.EngineArgs`.

    Raises:
        DumpError: vLLM cannot run the model with these settings.
        DeadEngineError: A device failed or ran out of memory.
    """

    def __init__(self, config: WriterConfig, **options: Any) -> None:
        self._config = config
        self._stop_token_ids = sorted(config.end_ids)
        on_gpu = torch.cuda.is_available()
        self._running = RUNNING["cuda" if on_gpu else "cpu"]
        self._log = EngineLog("vllm-writer")
        set_environment(config, on_gpu=on_gpu, running=self._running)
        bind_children()
        with self._log.starting("writer") as processes:
            from vllm import EngineArgs, LLMEngine

            arguments = engine_arguments(config, on_gpu=on_gpu, running=self._running)
            self._llm = LLMEngine.from_engine_args(EngineArgs(**{**arguments, **options}))
        watch(self._llm, processes, self._log)

    def write(self, tasks: Iterable[TaskRequests], on_tokens: OnTokens) -> Iterator[TaskResponses]:
        """Yield the tasks as they become complete; see `ResponseWriter.write`.

        Raises:
            DeadEngineError: A process of the engine ended.
        """
        queue = _requests(tasks)
        places: dict[str, tuple[_TaskInWork, int]] = {}
        serial = 0
        is_fed = False
        while True:
            while not is_fed and len(places) < QUEUED * self._running:
                item = next(queue, None)
                if item is None:
                    is_fed = True
                    break
                open_task, place, request = item
                places[str(serial)] = open_task, place
                self._add(str(serial), request)
                serial += 1
            if not places:
                return
            for output in self._step():
                open_task, place = places.pop(output.request_id)
                response = self._response(open_task.requests[place], output.outputs[0])
                open_task.responses[place] = response
                on_tokens(len(response.ids), 1)
                if open_task.is_complete:
                    yield open_task.task, [open_task.responses[i] for i in range(len(open_task.requests))]

    def close(self) -> None:
        """End vLLM's processes."""
        with contextlib.suppress(Exception):  # of processes that have ended already
            self._llm.engine_core.shutdown(timeout=CLOSE_S)
        self._log.discard()

    def _add(self, name: str, request: ResponseRequest) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        config = self._config
        params = SamplingParams(
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens(request),
            stop_token_ids=self._stop_token_ids,
            seed=request.seed if config.temperature > 0 else None,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._llm.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, params)

    def _step(self) -> list[Any]:
        try:
            outputs: list[Any] = self._llm.step()
        except Exception as error:
            if type(error).__name__ in CRASH_ERRORS:
                raise self._log.crashed(self._log.cause(error)) from error
            raise
        return outputs

    def _response(self, request: ResponseRequest, completion: Any) -> WrittenResponse:
        return self._config.response(request, list(completion.token_ids), float(completion.cumulative_logprob))


@dataclass(slots=True)
class _TaskInWork:
    """A task whose responses are being written."""

    task: WritingTask
    requests: list[ResponseRequest]
    responses: dict[int, WrittenResponse] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.responses) == len(self.requests)


def _requests(tasks: Iterable[TaskRequests]) -> Iterator[tuple[_TaskInWork, int, ResponseRequest]]:
    for task, requests in tasks:
        open_task = _TaskInWork(task, list(requests))
        for place, request in enumerate(open_task.requests):
            yield open_task, place, request


def engine_arguments(config: WriterConfig, *, on_gpu: bool, running: int) -> dict[str, Any]:
    """Return the arguments of `vllm.EngineArgs`.

    Args:
        config: Settings of the engine.
        on_gpu: Whether there is a GPU.
        running: Most responses that are written at the same time.
    """
    arguments: dict[str, Any] = {
        "model": str(config.folder),
        "dtype": config.dtype,
        "max_model_len": config.used_length,
        "max_num_seqs": running,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # sampling settings are those of this dump alone
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
        "disable_log_stats": True,
        "seed": 0,
    }
    if config.padded_vocab_size > config.vocab_size:
        arguments["hf_overrides"] = {"architectures": [f"{WRITER_PREFIX}{causal_architecture(config.folder)}"]}
        arguments["additional_config"] = {CONFIG_KEY: {"vocab_size": config.vocab_size}}
    if config.gpu_memory_utilization is not None:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    if config.max_num_batched_tokens is not None:
        arguments["max_num_batched_tokens"] = config.max_num_batched_tokens
    if not on_gpu:
        # A prompt in two steps rewinds the generator of a seed, which on a CPU ends the engine.
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False}
        arguments["max_num_batched_tokens"] = max(2048, config.used_length)
    return arguments


def set_environment(config: WriterConfig, *, on_gpu: bool, running: int) -> None:
    """Set what vLLM reads only from the environment; see `engine_arguments`."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if on_gpu:
        return
    model = load_config(config.folder)
    heads = model.get("num_key_value_heads") or model["num_attention_heads"]
    width = model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"]
    value_bytes = 4 if config.dtype == "float32" else 2
    needed = running * config.used_length * model["num_hidden_layers"] * heads * width * 2 * value_bytes
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gib = math.ceil(min(needed, _CPU_CACHE_SHARE * free) / 2**30)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, gib)))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", machine.vllm_binding(config.tensor_parallel_size))

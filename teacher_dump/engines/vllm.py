"""Engine on vLLM: prefill only, with the records made in vLLM's workers.

`vllm_plugin` makes the records. This module starts vLLM and feeds it windows. A loaded engine
passes the checks of `probe` before it captures anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from shards.runtime import machine
from shards.runtime.lifetime import bind_children
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.errors import CRASH_ERRORS, EngineLog, watch
from teacher_dump.engines.probe import EngineProbe
from teacher_dump.engines.records import Packed
from teacher_dump.engines.vllm_plugin import CONFIG_KEY, PREFIX, TASK, is_causal_name
from teacher_dump.errors import DumpError
from teacher_dump.model.rope import LONGROPE, length_changes
from teacher_dump.tasks.windowing import Window

BATCH_WINDOWS = {"cpu": 16, "cuda": 128}
"""Number of windows per call of vLLM: enough to fill its schedule, few enough to show progress."""
BATCHED_TOKENS = 2048
"""Largest number of tokens of an engine step."""
CLOSE_S = 2.0
"""Seconds that vLLM's processes have to end by themselves. They hold no state that must be kept."""
_BIND = "VLLM_CPU_OMP_THREADS_BIND"
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # `bind_children` ends spawned processes with this one
}
"""Settings that vLLM reads from the environment only. The user's own values have precedence."""

Reply = list[Packed] | BaseException
"""Packed records of a batch of windows, or the error of the engine."""


class VllmEngine:
    """A teacher in vLLM, in processes on this machine."""

    def __init__(self, config: EngineConfig, **options: Any) -> None:
        """Start vLLM and check the loaded teacher.

        Args:
            config: Settings of the engine.
            **options: More arguments of `vllm.LLM`.

        Raises:
            DumpError: vLLM cannot run the teacher with these settings, or `probe.EngineProbe` refuses it.
            DeadEngineError: A device failed or ran out of memory.
        """
        on_gpu = torch.cuda.is_available()
        stages = config.pipeline_parallel_size
        if stages > 1 and not on_gpu:  # vLLM's CPU worker has no buffers for the input of a later stage
            raise DumpError(
                f"--pipeline-parallel-size {stages}: found no GPU, and vLLM 0.32 splits layers over GPUs only; "
                "leave the option out, or use --tensor-parallel-size"
            )
        require_supported(config)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        bind_children()
        self._config = config
        probe = EngineProbe(config)
        self._batch_windows = BATCH_WINDOWS["cuda" if on_gpu else "cpu"]
        self._log = EngineLog("vllm")
        binding = contextlib.nullcontext() if on_gpu else bound_threads(config.tensor_parallel_size * stages)
        with binding, self._log.starting("engine") as processes:
            import vllm

            self._llm = vllm.LLM(**_arguments(config, on_gpu=on_gpu), **options)
        watch(self._llm.llm_engine, processes, self._log)
        try:
            probe.check(self)
        except BaseException:
            self.close()
            raise

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in order.

        The engine works on the next batch while the caller encodes and writes the current one. The thread that feeds it
        is a daemon: a caller that stops early does not wait for the batch in progress.
        """
        batches = [windows[i : i + self._batch_windows] for i in range(0, len(windows), self._batch_windows)]
        replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        room = threading.Semaphore(2)  # the batch that the caller reads, and the batch that the engine works on
        stopped = False

        def feed() -> None:
            try:
                for batch in batches:
                    room.acquire()
                    if stopped:
                        return
                    replies.put(self._encode(batch))
            except BaseException as error:  # raised again in the caller's thread
                replies.put(error)

        threading.Thread(target=feed, name="vllm", daemon=True).start()
        try:
            for _ in batches:
                reply = replies.get()
                if isinstance(reply, BaseException):
                    if type(reply).__name__ in CRASH_ERRORS:
                        raise self._log.crashed(self._log.cause(reply)) from reply
                    raise reply
                yield from reply
                room.release()
        finally:
            stopped = True
            room.release()

    def close(self) -> None:
        """End vLLM's processes."""
        self._llm.llm_engine.engine_core.shutdown(timeout=CLOSE_S)
        self._log.discard()

    def _encode(self, batch: Sequence[Window]) -> list[Packed]:
        from vllm import PoolingParams

        seed = self._config.seed
        outputs = self._llm.encode(
            [{"prompt_token_ids": window.tokens.tolist()} for window in batch],
            [
                PoolingParams(
                    extra_kwargs={
                        "document": w.info.document,
                        "window": w.info.window,
                        "context": w.info.context,
                        "seed": seed,
                    }
                )
                for w in batch
            ],
            pooling_task=TASK,
            use_tqdm=False,
        )
        for window, output in zip(batch, outputs, strict=True):
            assert output.prompt_token_ids == window.tokens.tolist(), "vLLM returned the records of another prompt"
        return [output.outputs.data.numpy() for output in outputs]


def _arguments(config: EngineConfig, *, on_gpu: bool) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`."""
    memory = config.gpu_memory_utilization
    return {
        "model": str(config.folder),
        "runner": "pooling",
        "hf_overrides": {"architectures": [f"{PREFIX}{causal_architecture(config.folder)}"]},
        "dtype": config.dtype,
        "max_model_len": config.window_tokens,
        "max_num_batched_tokens": config.max_num_batched_tokens or max(BATCHED_TOKENS, config.window_tokens),
        "enable_prefix_caching": False,
        "enforce_eager": not on_gpu,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
        "disable_log_stats": True,
        "seed": 0,
        "additional_config": {
            CONFIG_KEY: {
                "spec": dataclasses.asdict(config.spec),
                "vocab_size": config.vocab_size,
                "whitespace_ids": list(config.whitespace_ids),
            }
        },
        **({} if memory is None else {"gpu_memory_utilization": memory}),
    }


@contextlib.contextmanager
def bound_threads(workers: int) -> Iterator[None]:
    """Bind the threads of each worker of a CPU engine to its share of the cores, unless the user has bound them.

    By default vLLM gives each worker a NUMA node, and fails if there are fewer nodes than workers.

    Args:
        workers: Number of processes of the engine: tensor parallel size times pipeline parallel size.
    """
    if _BIND in os.environ:
        yield
        return
    os.environ[_BIND] = machine.vllm_binding(workers)
    try:
        yield
    finally:
        del os.environ[_BIND]


def causal_architecture(folder: Path) -> str:
    """Return the name of a model's architecture.

    Raises:
        DumpError: It is no causal language model, or vLLM has no such architecture.
    """
    from vllm import ModelRegistry

    names = json.loads((folder / "config.json").read_bytes()).get("architectures") or [None]
    if not is_causal_name(str(names[0])):
        raise DumpError(
            f"{folder}: found architecture {names[0]}, expected a causal LM for vLLM; "
            "use --engine transformers, or another teacher"
        )
    if names[0] not in ModelRegistry.get_supported_archs():
        raise DumpError(f"{folder}: vLLM has no {names[0]}; use --engine transformers")
    return str(names[0])


def require_supported(config: EngineConfig) -> None:
    """Refuse rotary factors that depend on the length of a row. No part of vLLM is imported.

    vLLM selects LongRoPE's factors once, by the largest length. transformers selects them by the length of each row.

    Raises:
        DumpError: Windows can be longer than the length where the factors change.
    """
    for kind, change in length_changes(json.loads((config.folder / "config.json").read_bytes())):
        if kind in LONGROPE and config.window_tokens > change:
            raise DumpError(
                f"{config.folder}: found LongRoPE factors that change at {change:,} tokens, which vLLM applies by the "
                f"largest row alone; expected --window-tokens of at most {change}, or use --engine transformers"
            )

"""Records from vLLM: prefill only; the worker makes the records."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import threading
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from shards.runtime import machine
from shards.runtime.lifetime import bind_children
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.engine_log import EngineLog
from teacher_dump.engines.errors import CRASH_ERRORS, engine_crashed
from teacher_dump.engines.records import Packed
from teacher_dump.engines.vllm_plugin import PREFIX, TASK, is_causal_name
from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.tasks.windowing import Window

BATCH_WINDOWS = {"cpu": 16, "cuda": 128}
"""Windows handed to the engine at a time: enough to fill its schedule, few enough to show progress."""
BATCHED_TOKENS = 2048
"""Most tokens of one engine step."""
CLOSE_S = 2.0
"""Seconds that vLLM's processes have to end by themselves. They hold nothing that must be kept."""
LOOK_S = 0.5
"""Seconds between two looks at whether vLLM's processes live, while an answer is awaited."""
_BIND = "VLLM_CPU_OMP_THREADS_BIND"
Answer = list[Packed] | BaseException


class VllmEngine:
    """A teacher in vLLM, in this machine's processes."""

    def __init__(self, config: EngineConfig, **options: Any) -> None:
        """Load the teacher; `options` go to vLLM as they are. Raises DumpError where vLLM cannot."""
        cuda = torch.cuda.is_available()
        stages = config.pipeline_parallel_size
        if stages > 1 and not cuda:  # vLLM's CPU worker makes no buffers for what a later group of layers receives
            raise DumpError(
                f"--pipeline-parallel-size {stages}: found no GPU, and vLLM 0.32 shares layers out among GPUs only; "
                "leave the option out, or use --tensor-parallel-size"
            )
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # spawned processes end with this one
        bind_children()
        self._config = config
        self._batch_windows = BATCH_WINDOWS["cuda" if cuda else "cpu"]
        self._log = EngineLog("vllm")
        workers = config.tensor_parallel_size * stages
        before = set(multiprocessing.active_children())
        try:
            with self._log.receiving():
                import vllm

                stock = _architecture(config)
                with contextlib.nullcontext() if cuda else bound_threads(workers):
                    self._llm = self._start(vllm.LLM, stock, config.dtype, cuda, options)
        except DumpError:
            self._log.discard()
            raise
        except Exception as error:  # the engine fails in a process of its own and reports in many ways
            cause = self._log.cause(error)
            kind = DeadEngineError if "OutOfMemory" in cause or "CUDA error" in cause else DumpError
            raise kind(
                f"vllm: the engine did not start ({cause}); its whole output is in {self._log.path}; "
                "change the setting that it names, or use --engine transformers"
            ) from error
        self._processes = [p for p in multiprocessing.active_children() if p not in before]

    def _start(self, llm: Any, stock: str, dtype: str, cuda: bool, options: dict[str, Any]) -> Any:
        config, spec = self._config, self._config.spec
        memory = config.gpu_memory_utilization
        return llm(
            model=str(config.folder),
            runner="pooling",
            hf_overrides={"architectures": [f"{PREFIX}{stock}"]},
            dtype=dtype,
            max_model_len=config.window_tokens,
            max_num_batched_tokens=config.max_num_batched_tokens or max(BATCHED_TOKENS, config.window_tokens),
            enable_prefix_caching=False,
            enforce_eager=not cuda,
            tensor_parallel_size=config.tensor_parallel_size,
            pipeline_parallel_size=config.pipeline_parallel_size,
            quantization=config.quantization,
            disable_log_stats=True,
            seed=0,
            additional_config={
                "teacherless": {
                    "threshold": spec.threshold,
                    "tail_floor": spec.tail_floor,
                    "temperatures": list(spec.temperatures),
                    "vocab_size": config.vocab_size,
                    "whitespace_ids": list(config.whitespace_ids),
                }
            },
            **({} if memory is None else {"gpu_memory_utilization": memory}),
            **options,
        )

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in order.

        The engine works on the next batch while the caller encodes and writes this one. Its thread is a daemon: who
        stops early need not wait for a batch that nobody reads.
        """
        batches = [windows[i : i + self._batch_windows] for i in range(0, len(windows), self._batch_windows)]
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        room = threading.Semaphore(2)  # the batch that is read, and the one that is made
        stopped = False

        def work() -> None:
            try:
                for batch in batches:
                    room.acquire()
                    if stopped:
                        return
                    answers.put(self._encode(batch))
            except BaseException as error:  # raised again in the caller
                answers.put(error)

        threading.Thread(target=work, name="vllm", daemon=True).start()
        try:
            for _ in batches:
                answer = next_answer(answers, self._processes, log=self._log.path)
                if type(answer).__name__ in CRASH_ERRORS:
                    assert isinstance(answer, BaseException)
                    raise engine_crashed(
                        "vllm", f"{self._log.cause(answer)}; its output is in {self._log.path}"
                    ) from answer
                if isinstance(answer, BaseException):
                    raise answer
                yield from answer
                room.release()
        finally:
            stopped = True
            room.release()

    def _encode(self, batch: Sequence[Window]) -> list[Packed]:
        from vllm import PoolingParams

        seed = self._config.seed
        outputs = self._llm.encode(
            [{"prompt_token_ids": w.tokens.tolist()} for w in batch],
            [
                PoolingParams(extra_kwargs={"document": w.info.document, "window": w.info.window, "seed": seed})
                for w in batch
            ],
            pooling_task=TASK,
            use_tqdm=False,
        )
        for window, output in zip(batch, outputs, strict=True):
            assert output.prompt_token_ids == window.tokens.tolist(), "vLLM answered another prompt"
        return [output.outputs.data.numpy() for output in outputs]

    def close(self) -> None:
        """End vLLM's processes."""
        self._llm.llm_engine.engine_core.shutdown(timeout=CLOSE_S)
        self._log.discard()


def next_answer(answers: queue.SimpleQueue[Answer], processes: Collection[BaseProcess], *, log: Path) -> Answer:
    """Return the next answer of the engine.

    Raises:
        DeadEngineError: a process of the engine ended. vLLM waits for ever for the answer of a process that was killed.
    """
    while True:
        try:
            return answers.get(timeout=LOOK_S)
        except queue.Empty:
            for process in processes:
                if not process.is_alive():
                    cause = f"its process ended with code {process.exitcode}"
                    raise engine_crashed("vllm", f"{cause}; its output is in {log}") from None


@contextlib.contextmanager
def bound_threads(workers: int) -> Iterator[None]:
    """Bind the threads of each worker of a CPU engine to its share of the cores, where the user has not.

    vLLM alone gives each worker a NUMA node of its own, and fails where there are fewer nodes than workers.

    Args:
        workers: Processes of the engine, tensor parallel times pipeline parallel.
    """
    if _BIND in os.environ:
        yield
        return
    os.environ[_BIND] = machine.vllm_binding(workers)
    try:
        yield
    finally:
        del os.environ[_BIND]


def _architecture(config: EngineConfig) -> str:
    """Return the teacher's architecture. Raises DumpError where vLLM has none of that name that is a causal LM."""
    from vllm import ModelRegistry

    names = json.loads((config.folder / "config.json").read_bytes()).get("architectures") or [None]
    if not is_causal_name(str(names[0])):
        raise DumpError(
            f"{config.folder}: found architecture {names[0]}, expected a causal LM for vLLM; "
            "use --engine transformers, or another teacher"
        )
    if names[0] not in ModelRegistry.get_supported_archs():
        raise DumpError(f"{config.folder}: vLLM has no {names[0]}; use --engine transformers")
    return str(names[0])

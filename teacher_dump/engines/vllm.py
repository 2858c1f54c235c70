"""What does the teacher say, asked through vLLM? Prefill only; the records are made in the worker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from teacher_dump.engines import Packed, Teaching
from teacher_dump.engines.vllm_plugin import PREFIX, TASK
from teacher_dump.errors import DumpError
from teacher_dump.windows import Window

BATCH_WINDOWS = {"cpu": 16, "cuda": 128}
"""Windows handed to the engine at a time: enough to fill its schedule, few enough to show progress."""
BATCHED_TOKENS = 2048
"""Most tokens of one engine step."""


class VllmEngine:
    """A teacher in vLLM, in this machine's processes."""

    def __init__(self, teaching: Teaching, **options: Any) -> None:
        """Load the teacher; `options` go to vLLM as they are."""
        cuda = torch.cuda.is_available()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        with _engine_log():
            import vllm

        self._teaching = teaching
        self._batch_windows = BATCH_WINDOWS["cuda" if cuda else "cpu"]
        stock = json.loads((teaching.folder / "config.json").read_bytes())["architectures"][0]
        if not stock.endswith("ForCausalLM"):
            raise DumpError(f"{teaching.folder}: found architecture {stock}, expected a causal LM; use another teacher")
        with _engine_log():
            self._llm = self._start(vllm.LLM, stock, teaching.dtype, cuda, options)

    def _start(self, llm: Any, stock: str, dtype: str, cuda: bool, options: dict[str, Any]) -> Any:
        teaching, spec = self._teaching, self._teaching.spec
        memory = teaching.gpu_memory_utilization
        return llm(
            model=str(teaching.folder),
            runner="pooling",
            hf_overrides={"architectures": [f"{PREFIX}{stock}"]},
            dtype=dtype,
            max_model_len=teaching.window_tokens,
            max_num_batched_tokens=teaching.max_num_batched_tokens or max(BATCHED_TOKENS, teaching.window_tokens),
            enable_prefix_caching=False,
            enforce_eager=not cuda,
            tensor_parallel_size=teaching.tensor_parallel_size,
            pipeline_parallel_size=teaching.pipeline_parallel_size,
            quantization=teaching.quantization,
            disable_log_stats=True,
            seed=0,
            additional_config={
                "teacherless": {
                    "threshold": spec.threshold,
                    "tail_floor": spec.tail_floor,
                    "temperatures": list(spec.temperatures),
                    "vocab_size": teaching.vocab_size,
                    "whitespace_ids": list(teaching.whitespace_ids),
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
        answers: queue.SimpleQueue[list[Packed] | BaseException] = queue.SimpleQueue()
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
                answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield from answer
                room.release()
        finally:
            stopped = True
            room.release()

    def _encode(self, batch: Sequence[Window]) -> list[Packed]:
        from vllm import PoolingParams

        seed = self._teaching.seed
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
        self._llm.llm_engine.engine_core.shutdown()


@contextlib.contextmanager
def _engine_log() -> Iterator[None]:
    """Send what vLLM and its processes print to a file; show its end where the start fails.

    The processes inherit the file and go on writing to it: what they say later stays off the terminal too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.NamedTemporaryFile(prefix="teacher-dump-vllm-", suffix=".log") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept[1], 2)
            with open(log.name, errors="replace") as lines:
                sys.stderr.write("".join(lines.readlines()[-30:]))
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for number in kept:
                os.close(number)

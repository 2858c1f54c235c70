"""What does the model write, by vLLM? Requests go in as places come free, answers come out as they end.

One request per answer, each with its own seed: vLLM turns one request for n answers into n requests anyway, and
shares their prompt through its prefix cache alone. So prefix caching is on for sampled answers. It is off for
greedy ones, which it can change from run to run (vllm#15437), and they share no prompts.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Collection
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt, Settings
from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.decoding import cannot_load, end_ids, finish, fitting_ids, load_config, load_tokenizer
from evalkit.tasks.protocols import Protocol
from shards.runtime import machine
from shards.runtime.lifetime import bind_children

_QUEUED = 2
"""Requests in the engine, in batches: one being written, one that waits, so that no place stays free."""


def write_answers(
    checkpoint: Checkpoint,
    prompts: list[Prompt],
    protocol: Protocol,
    settings: Settings,
    *,
    on_answer: Callable[[Answer], None],
    on_tokens: Callable[[int], None],
) -> None:
    """See `generate.write_answers`."""
    import torch

    tokenizer, config = load_tokenizer(checkpoint), load_config(checkpoint)
    ids = fitting_ids(checkpoint, tokenizer, prompts, config)
    ends = end_ids(tokenizer, checkpoint)
    max_len = min(max(map(len, ids)) + protocol.max_new_tokens, config.max_position_embeddings)
    on_cpu = not torch.cuda.is_available()
    _set_environment(settings, config, tokens=max_len * settings.batch_size if on_cpu else None)
    from vllm.v1.engine.exceptions import EngineDeadError

    before = set(multiprocessing.active_children())
    engine = _start(checkpoint, protocol, settings, max_len=max_len, on_cpu=on_cpu)
    _watch(engine, [p for p in multiprocessing.active_children() if p not in before])
    # With all requests of a batch done before the next begins, each answer always has the same company.
    in_engine = settings.batch_size * (1 if settings.deterministic else _QUEUED)
    given = 0
    try:
        on_tokens(0)  # loaded: the clock of the rate starts
        while given < len(prompts) or engine.has_unfinished_requests():
            room = in_engine - engine.get_num_unfinished_requests()
            if room == in_engine or not settings.deterministic:
                for place in range(given, min(given + room, len(prompts))):
                    room_left = max_len - len(ids[place])
                    params = _sampling(prompts[place], protocol, ends, max_tokens=room_left, on_cpu=on_cpu)
                    engine.add_request(str(place), {"prompt_token_ids": ids[place]}, params)
                    given = place + 1
            for output in engine.step():
                place, (written,) = int(output.request_id), output.outputs
                new_ids = list(written.token_ids)
                on_tokens(len(new_ids))
                on_answer(finish(tokenizer, prompts[place], ids[place], new_ids, protocol, ends))
    except EngineDeadError as error:
        raise EvalError(
            f"{checkpoint.source}: the engine died while it wrote answers; expected one that writes them all; the "
            "system may have ended it for want of memory: give a smaller --batch-size; answers that are written are "
            "kept, the same command goes on from there"
        ) from error
    finally:
        engine.engine_core.shutdown()


def _start(checkpoint: Checkpoint, protocol: Protocol, settings: Settings, *, max_len: int, on_cpu: bool) -> Any:
    from vllm import EngineArgs, LLMEngine

    cpu_only: dict[str, Any] = {
        "enforce_eager": True,  # compiling takes longer than it saves on a CPU
        # A prompt in two steps rewinds the seed's generator, which on a CPU ends the engine ("does not use offset").
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(2048, max_len),
        "logits_processors": ["evalkit.generation.top_p_vllm:Nucleus"],
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
                generation_config="vllm",  # settings from the protocol alone
                disable_log_stats=True,
                **(cpu_only if on_cpu else {}),
            )
        )
    except Exception as error:  # the engine fails in a process of its own and reports in many ways
        raise cannot_load(checkpoint, "model", error) from error


def _sampling(prompt: Prompt, protocol: Protocol, ends: list[int], *, max_tokens: int, on_cpu: bool) -> Any:
    """Return vLLM's settings of one answer, of at most `max_tokens` and the protocol's limit."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=protocol.temperature,
        top_p=1.0 if on_cpu else protocol.top_p,  # on a CPU `Nucleus` does it
        max_tokens=min(protocol.max_new_tokens, max_tokens),
        stop=list(protocol.stop),
        stop_token_ids=ends,
        include_stop_str_in_output=True,
        seed=prompt.seed if protocol.temperature > 0 else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _watch(engine: Any, processes: Collection[BaseProcess]) -> None:
    """Make a step of the engine raise EngineDeadError when one of its processes ends; vLLM would wait for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    outputs = getattr(engine.engine_core, "outputs_queue", None)  # an engine in this process has none
    if outputs is None or not processes:
        return

    def wait() -> None:
        connection.wait([process.sentinel for process in processes])
        outputs.put(EngineDeadError())

    threading.Thread(target=wait, name="engine-watch", daemon=True).start()


def _set_environment(settings: Settings, config: Any, *, tokens: int | None) -> None:
    """Set what vLLM reads from the environment alone, where the user has not; `tokens` to keep on a CPU."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # spawned processes end with this one
    bind_children()
    if settings.deterministic:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # otherwise a step holds what happened to arrive
    if tokens is not None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        size = 4 if settings.dtype == "float32" else 2
        wanted = tokens * config.num_hidden_layers * heads * width * 2 * size
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, math.ceil(min(wanted, memory / 3) / 2**30))))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", machine.vllm_binding())  # all write; judging takes little

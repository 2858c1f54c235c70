"""Estimate of the cost of writing, before anything is loaded or fetched.

Decoding reads all weights, and the keys and values of every running response, once per step. So on a GPU a step takes
those bytes divided by the memory's bandwidth, and a fixed time for scheduling and sampling, which decides for small
models. Assumptions: the share of the bandwidth that is reached, and the fixed time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from shards.runtime.machine import num_threads
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.readers.hub import is_hub_id
from teacher_dump.cost import CPU_FLOPS_PER_CORE, CorpusEstimate, estimate, parameters_and_shape, plan_lines
from teacher_dump.gpu_cost import DEFAULT_MACHINE, place
from teacher_dump.model.registry import ModelShape, lookup
from teacher_dump.writing.prompts.filters import PromptFilter
from teacher_dump.writing.prompts.prompt import conversation_text
from teacher_dump.writing.prompts.sources import read_prompts, require_prompts
from teacher_dump.writing.settings import WritingSettings

BANDWIDTH_SHARES = (0.3, 0.5, 0.7)
"""Share of a GPU's memory bandwidth that decoding reaches: low, expected, high. An assumption: replace it with the
tokens per second that `teacher-dump` prints on your machine."""
STEP_S = 0.005
"""Seconds of a step beside reading memory. An assumption like the shares."""
RUNNING = 256
"""Responses that a GPU engine writes at the same time."""
_CPU_SHARE = 0.3
"""Share of the rate of prefill that decoding reaches on a CPU, in batches of 16."""
_TEXT_BYTES_PER_TOKEN = 3.5
"""UTF-8 bytes of a prompt per token."""


def estimate_with_writing(config: DumpConfig, settings: WritingSettings, machine: str | None) -> dict[str, Any]:
    """Estimate writing and recording. Loads no model.

    Args:
        config: The settings of the dump.
        settings: What is written.
        machine: The machine to plan for, such as "8xH100".

    Returns:
        The plan of recording as JSON, with the plan of writing under `writing`; unknown numbers are None.

    Raises:
        DumpError: The prompts cannot be read, or the machine is unknown or cannot hold a model.
    """
    prompts, prompt_tokens, how = _count_prompts(config, settings)
    answers = None if prompts is None else prompts * settings.samples
    new_tokens = None if answers is None else answers * settings.max_new_tokens
    corpus = CorpusEstimate()
    if answers is not None and prompt_tokens is not None and new_tokens is not None:
        how.append(
            f"tokens: {answers:,} responses of at most {settings.max_new_tokens:,} = at most {new_tokens:,} to write"
        )
        corpus.value = float(prompt_tokens * settings.samples + new_tokens)
        corpus.how.append(f"tokens: prompts and responses, at most {corpus.value:,.0f}")
    else:
        corpus.how.append("tokens: the number of prompts is not known before they are read")
    writer = settings.writer or config.model
    mean_length = _mean_length(prompts, prompt_tokens, settings)
    facts, steps = _time(_of_writer(config, settings), machine, new_tokens, mean_length=mean_length)
    writing = {
        "prompts": prompts,
        "responses": answers,
        "tokens": new_tokens,
        "writer": writer,
        **facts,
        "how": [*how, *steps],
    }
    return {**estimate(config, machine, corpus=corpus), "data": str(settings.prompts), "writing": writing}


def writing_plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a plan as lines of text: writing, then recording."""
    writing = plan["writing"]
    yield "writing"
    for name in ("prompts", "responses", "tokens"):
        yield f"{name:>10}  " + ("not known" if writing[name] is None else f"{writing[name]:,}")
    yield f"{'writer':>10}  {writing['writer']}"
    if writing.get("gpu_hours") is not None:
        low, high = (writing["range"][i] for i in (-1, 0))
        shares = f"{BANDWIDTH_SHARES[-1]:.0%} to {BANDWIDTH_SHARES[0]:.0%} of the bandwidth"
        yield f"{'wall time':>10}  {writing['hours']:,} h ({low['hours']:,} to {high['hours']:,} at {shares})"
        yield f"{'GPU-hours':>10}  {writing['gpu_hours']:,} ({low['gpu_hours']:,} to {high['gpu_hours']:,})"
    if "seconds" in writing:
        yield f"{'wall time':>10}  {writing['seconds'] / 60:,.0f} min on this machine, at most"
    yield "how:"
    yield from (f"            {line}" for line in writing["how"])
    yield "recording"
    yield from plan_lines(plan)


def _count_prompts(config: DumpConfig, settings: WritingSettings) -> tuple[int | None, int | None, list[str]]:
    """Return the number of usable prompts and of their tokens, and the steps; None where they are on the hub."""
    source = str(settings.prompts)
    if is_hub_id(source):
        known = config.max_documents
        how = "prompts: not known before they are read" if known is None else f"prompts: --max-documents {known:,}"
        return known, None if known is None else known * 200, [how + ", of about 200 tokens (assumed)"]
    require_prompts(source)
    log = DropLog()
    check = PromptFilter(config.filters, Counter(), log)
    num_prompts = num_bytes = 0
    for prompt in check(read_prompts(source, config, log, is_chat=True)):
        num_prompts += 1
        num_bytes += len(conversation_text(prompt.conversation()).encode())
        if num_prompts == config.max_documents:
            break
    tokens = round(num_bytes / _TEXT_BYTES_PER_TOKEN)
    how = (
        f"prompts: {num_prompts:,} after the filters, {num_bytes:,} bytes / {_TEXT_BYTES_PER_TOKEN} bytes per token = "
        f"{tokens:,} tokens"
    )
    return num_prompts, tokens, [how]


def _of_writer(config: DumpConfig, settings: WritingSettings) -> DumpConfig:
    """Return the settings of a dump as they apply to the writer: its name, parallelism and quantisation."""
    tensor_parallel_size, pipeline_parallel_size = settings.parallel_sizes(
        config.tensor_parallel_size, config.pipeline_parallel_size
    )
    return replace(
        config,
        model=settings.writer or config.model,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        quantization=config.quantization if settings.writer is None else None,
    )


def _mean_length(prompts: int | None, prompt_tokens: int | None, settings: WritingSettings) -> float:
    """Return the mean number of tokens that a running response has keys and values of."""
    mean_prompt = prompt_tokens / prompts if prompts and prompt_tokens else 200
    return mean_prompt + settings.max_new_tokens / 2


def _time(
    config: DumpConfig, machine: str | None, tokens: int | None, *, mean_length: float
) -> tuple[dict[str, Any], list[str]]:
    entry = lookup(config.model)
    model = parameters_and_shape(config.model)
    if model is None:
        return {}, [f"time: the shape of {config.model} is not known before it is fetched (--fetch)"]
    parameters, shape = model
    if machine is None and (config.engine == "transformers" or (entry is not None and entry.package is not None)):
        cores = num_threads().number
        used = parameters - (shape.unused_weights(parameters) or 0)
        rate = CPU_FLOPS_PER_CORE * cores / (2 * used) * _CPU_SHARE
        how = f"time: {cores} cores, {_CPU_SHARE:.0%} of the rate of prefill: {rate:,.0f} tokens/s"
        return ({} if tokens is None else {"seconds": round(tokens / rate)}), [how]
    return decoding_cost(config, machine or DEFAULT_MACHINE, parameters, shape, tokens, mean_length=mean_length)


def decoding_cost(
    config: DumpConfig,
    machine: str,
    parameters: int,
    shape: ModelShape,
    tokens: int | None,
    *,
    mean_length: float,
) -> tuple[dict[str, Any], list[str]]:
    """Estimate the time of writing on GPUs.

    Args:
        config: Model, parallelism and quantisation of the writer.
        machine: Number and name of the GPUs, such as "8xH100".
        parameters: Weights of the writer.
        shape: Its dimensions.
        tokens: Tokens to write, None if unknown.
        mean_length: Tokens that a running response has keys and values of, on average.

    Returns:
        The facts as JSON, and the steps that lead to them.

    Raises:
        DumpError: The machine is unknown, or cannot hold the model.
    """
    placement = place(config, machine, parameters)
    kv_bytes = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim * RUNNING * mean_length
    step_bytes = (placement.weight_bytes + kv_bytes) / placement.gpus_per_worker
    estimates: list[dict[str, Any]] = []
    for share in BANDWIDTH_SHARES:
        rate = placement.workers * RUNNING / (step_bytes / (share * placement.gpu.bandwidth) + STEP_S)
        facts: dict[str, Any] = {"use": share, "tokens_per_s": round(rate)}
        if tokens is not None:
            hours = tokens / rate / 3600
            facts |= {"hours": round(hours, 1), "gpu_hours": round(hours * placement.used_gpus, 1)}
        estimates.append(facts)
    how = (
        f"rate: {placement.workers} workers x {RUNNING} responses per step of {step_bytes / 1e9:.1f} GB per GPU "
        f"(weights {placement.weight_bytes_per_gpu / 1e9:.1f}, keys and values of {mean_length:,.0f} tokens each) at "
        f"{BANDWIDTH_SHARES[1]:.0%} of {placement.gpu.bandwidth / 1e12:.2f} TB/s, and {STEP_S * 1000:g} ms = "
        f"{estimates[1]['tokens_per_s']:,} tokens/s"
    )
    expected = {name: value for name, value in estimates[1].items() if name != "use"}
    return {"machine": machine, **expected, "range": estimates}, [how]

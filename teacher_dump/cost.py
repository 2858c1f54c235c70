"""What would a dump cost? Tasks, bytes, memory, wall time and GPU-hours, before anything is loaded or fetched.

Arithmetic over published numbers: the teacher's shape, a GPU's data sheet, the corpus's size. The one assumption is
the share of a GPU's peak that prefill reaches; it is stated, and given as a range. `how` says each step in words.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.runtime.machine import num_threads
from teacher_dump.config import DumpConfig
from teacher_dump.corpus import THE_STACK_FACTS, Corpus, is_hub_id
from teacher_dump.engines.registry import select_engine
from teacher_dump.errors import DumpError
from teacher_dump.model.teachers import THE_STACK, Shape, count_parameters, known

PREFILL_USE = (0.35, 0.5, 0.6)
"""Share of the peak that prefill reaches, logits at every position included: low, expected, high. An assumption, to be
replaced by the tokens per second that `teacher-dump` prints on your machine."""
CPU_FLOPS_PER_CORE = 32e9
"""float32 FLOP/s of a core: SmolLM2-135M prefills about 240 tokens/s on two cores."""
BYTES_PER_TOKEN = 25.0
"""On disk at threshold 0.04 with a flat teacher; sharper teachers need less (docs/benchmarks)."""
MEMORY_USE = 0.9
"""Share of a GPU's memory that vLLM takes where --gpu-memory-utilization does not say."""
WEIGHTS_AT_MOST = 0.75
"""Share of that which weights may fill; the rest is for the KV cache, activations and logits."""
DEFAULT_MACHINE = "8xH100"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, from NVIDIA's data sheets (SXM, where there is one)."""

    flops: float
    """Dense bfloat16 FLOP/s: half of the figure with sparsity."""
    memory_bytes: float


GPUS = {
    "A100": Gpu(312e12, 80e9),
    "A100-40GB": Gpu(312e12, 40e9),
    "B200": Gpu(2250e12, 180e9),
    "H100": Gpu(989e12, 80e9),
    "H200": Gpu(989e12, 141e9),
    "L40S": Gpu(362e12, 48e9),
}


def estimate(config: DumpConfig, machine: str | None = None) -> dict[str, Any]:
    """Return what the dump would read, write and cost, with `how`. Loads no model and touches no network.

    Unknown numbers are None. Raises DumpError on an unknown machine, or one that cannot hold the teacher.
    """
    how: list[str] = []
    tokens = _tokens(config, how)
    tasks = None if tokens is None else -(-tokens // config.task_tokens)
    plan: dict[str, Any] = {
        "model": config.model,
        "data": config.data,
        "engine": select_engine(config.engine),
        "tokens": tokens,
        "tasks": tasks,
        "bytes": None if tokens is None else round(tokens * BYTES_PER_TOKEN),
    }
    if tokens is not None:
        how.append(f"tasks: {tokens:,} / {config.task_tokens:,} tokens = {tasks:,} shards")
        how.append(f"bytes: {tokens:,} tokens x {BYTES_PER_TOKEN:g} bytes on disk = {_size(plan['bytes'])}")
    found = _shape(config)
    if found is None:
        how.append(f"time: the shape of {config.model} is not known before it is fetched (--fetch)")
        return {**plan, "how": how}
    parameters, shape = found
    entry = known(config.model)
    flop = _flop(parameters, shape, config.window_tokens, how)
    if machine is None and (config.engine == "transformers" or (entry is not None and entry.package is not None)):
        return plan | {**_on_cpu(flop, tokens, how), "how": how}
    return plan | {**_on_gpus(config, machine or DEFAULT_MACHINE, parameters, shape, flop, tokens, how), "how": how}


def parse_machine(text: str) -> tuple[int, str]:
    """Read "8xH100". Raises DumpError naming the GPUs that are known."""
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", text)
    if match is None or match[2] not in GPUS or match[1] == "0":
        raise DumpError(f"--machine {text}: expected a number and a GPU, as in 8xH100; known: {', '.join(GPUS)}")
    return int(match[1] or 1), match[2]


def lines(plan: dict[str, Any]) -> list[str]:
    """Return a plan as lines of text."""

    def number(name: str) -> str:
        return "not known" if plan[name] is None else f"{plan[name]:,}"

    shown = [(name, str(plan[name])) for name in ("model", "data", "engine")]
    shown += [("tasks", number("tasks")), ("tokens", number("tokens"))]
    shown += [("bytes", "not known" if plan["bytes"] is None else _size(plan["bytes"]))]
    if "machine" in plan:
        shown += [
            ("machine", plan["machine"]),
            ("workers", f"{plan['workers']}, each on {plan['gpus_per_worker']} GPU(s)"),
            ("memory", f"{plan['weight_gb_per_gpu']:g} GB of weights on each GPU"),
        ]
    for name, value in (("wall time", "hours"), ("GPU-hours", "gpu_hours")):
        if plan.get(value) is not None:
            low, high = (plan["range"][i][value] for i in (-1, 0))
            uses = f"{PREFILL_USE[-1]:.0%} to {PREFILL_USE[0]:.0%} of the peak"
            unit = " h" if value == "hours" else ""
            shown.append((name, f"{plan[value]:,}{unit} ({low:,} to {high:,} at {uses})"))
    if "seconds" in plan:
        shown.append(("wall time", f"{plan['seconds'] / 60:,.0f} min on this machine"))
    text = [f"{name:>10}  {value}" for name, value in shown]
    return [*text, "how:", *(f"            {line}" for line in plan["how"])]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def _tokens(config: DumpConfig, how: list[str]) -> int | None:
    entry = known(config.model)
    per_token = entry.bytes_per_token if entry else 3.5
    size: float | None = None
    if config.data == THE_STACK:
        documents = THE_STACK_FACTS["documents"]
        size = THE_STACK_FACTS["bytes"]
        how.append(f"corpus: {documents:,} files, {size / 1e9:.1f} GB ({THE_STACK_FACTS['cite']})")
        if config.max_documents is not None and config.max_documents < documents:
            size *= config.max_documents / documents
            how.append(f"corpus: --max-documents {config.max_documents:,} of them, {size / 1e9:.2f} GB")
    elif is_hub_id(config.data):
        how.append("corpus: size not known before it is read; give --max-tokens")
    else:
        read = Corpus(data=config.data, seed=config.seed, max_documents=config.max_documents, filters=config.filters)
        sizes = [len(d.text.encode()) for d in read]
        size = float(sum(sizes))
        how.append(f"corpus: {len(sizes):,} documents, {size / 1e6:.1f} MB, after the filters")
    tokens = None
    if size is not None:
        tokens = round(size / per_token)
        assumed = "" if entry else " (assumed)"
        how.append(f"tokens: {size:,.0f} bytes / {per_token:.2f} bytes of Python per token{assumed} = {tokens:,}")
    if config.max_tokens is not None and (tokens is None or config.max_tokens < tokens):
        how.append(f"tokens: --max-tokens {config.max_tokens:,}" + ("" if tokens is None else f" of {tokens:,}"))
        tokens = config.max_tokens
    return tokens


def _shape(config: DumpConfig) -> tuple[int, Shape] | None:
    """Return the teacher's parameters and shape: published, or read from a folder's headers."""
    entry = known(config.model)
    if entry is not None:
        return entry.parameters, entry.shape
    folder = Path(config.model)
    try:
        about = json.loads((folder / "config.json").read_bytes())
        return count_parameters(folder), Shape.of_config(about.get("text_config", about))
    except (OSError, ValueError, KeyError):
        return None


def _flop(parameters: int, shape: Shape, window_tokens: int, how: list[str]) -> float:
    """Return FLOP per token of prefill: a multiply and an add per weight that is multiplied, and attention."""
    table = 0 if shape.tied else shape.vocab_size * shape.hidden_size
    weights = 2 * (parameters - table)
    # Scores and mixing: two products of the width of all heads with, on average, half the window.
    attention = 4 * shape.layers * shape.heads * shape.head_dim * window_tokens / 2
    how.append(
        f"FLOP per token: 2 x ({parameters / 1e9:.3f} - {table / 1e9:.3f} (input table)) G = {weights / 1e9:.2f} G, "
        f"attention 4 x {shape.layers} x {shape.heads * shape.head_dim:,} x {window_tokens / 2:g} = "
        f"{attention / 1e9:.2f} G, together {(weights + attention) / 1e9:.2f} G"
    )
    return weights + attention


def _on_cpu(flop: float, tokens: int | None, how: list[str]) -> dict[str, Any]:
    cores = num_threads().number
    rate = CPU_FLOPS_PER_CORE * cores / flop
    how.append(f"time: {cores} cores at {CPU_FLOPS_PER_CORE / 1e9:.0f} GFLOP/s each: {rate:,.0f} tokens/s")
    return {} if tokens is None else {"seconds": round(tokens / rate)}


def _on_gpus(
    config: DumpConfig, machine: str, parameters: int, shape: Shape, flop: float, tokens: int | None, how: list[str]
) -> dict[str, Any]:
    count, name = parse_machine(machine)
    gpu = GPUS[name]
    width = 1 if config.quantization in ("fp8", "int8") else 2
    weights = width * parameters
    room = (config.gpu_memory_utilization or MEMORY_USE) * gpu.memory_bytes
    asked = config.tensor_parallel_size * config.pipeline_parallel_size
    group = asked
    while asked == 1 and weights / group > WEIGHTS_AT_MOST * room:
        group *= 2
    share = weights / group
    if group > count or share > room:
        raise DumpError(
            f"--machine {machine}: {config.model} has {weights / 1e9:.0f} GB of weights, {share / 1e9:.0f} GB on each "
            f"of {group} GPUs with {room / 1e9:.0f} GB for vLLM; expected a larger machine, or more "
            "--tensor-parallel-size"
        )
    cached = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim
    fits = (room - share) * group / cached
    how.append(
        f"memory: {weights / 1e9:.1f} GB of weights ({width} bytes each) over {group} GPU(s) = {share / 1e9:.1f} GB "
        f"each; vLLM may take {room / 1e9:.1f} GB of {gpu.memory_bytes / 1e9:.0f}; a token's keys and values take "
        f"{cached:,} bytes, so {fits:,.0f} tokens would fill the rest; a step holds "
        f"{config.max_num_batched_tokens or 2048:,} (activations not counted)"
    )
    workers = count // group
    spread = f"--tensor-parallel-size {config.tensor_parallel_size if asked > 1 else group}"
    if config.pipeline_parallel_size > 1:
        spread += f" --pipeline-parallel-size {config.pipeline_parallel_size}"
    how.append(f"workers: {count} x {name} / {group} = {workers}, each with {spread}")
    split = group // config.pipeline_parallel_size
    exchanged = 2 * shape.layers * 2 * (split - 1) / split * shape.hidden_size * 2
    if split > 1:
        how.append(
            f"exchange: 2 sums per layer over {split} GPUs: 2 x {shape.layers} x 2 x {split - 1}/{split} x "
            f"{shape.hidden_size:,} x 2 bytes = {exchanged / 1e6:.2f} MB per token and GPU"
        )
    ranged = []
    for use in PREFILL_USE:
        rate = workers * group * gpu.flops * use / flop
        exchange = f", {exchanged * rate / workers / 1e9:,.0f} GB/s exchanged per GPU" if split > 1 else ""
        how.append(
            f"rate at {use:.0%} of {gpu.flops / 1e12:,.0f} TFLOP/s: {workers * group} x {gpu.flops * use / 1e12:,.0f} "
            f"T / {flop / 1e9:.2f} G = {rate:,.0f} tokens/s; a worker's task takes "
            f"{config.task_tokens / (rate / workers):,.0f} s{exchange}"
        )
        facts: dict[str, Any] = {"use": use, "tokens_per_s": round(rate)}
        if tokens is not None:
            hours = tokens / rate / 3600
            facts |= {"hours": round(hours, 1), "gpu_hours": round(hours * workers * group, 1)}
        ranged.append(facts)
    if tokens is not None:
        middle = ranged[1]
        how.append(
            f"GPU-hours: {tokens:,} / {middle['tokens_per_s']:,} tokens/s / 3600 x {workers * group} GPUs = "
            f"{middle['gpu_hours']:,}; cost = GPU-hours x your price of one; starts of engines are not counted"
        )
    return {
        "machine": machine,
        "gpu": asdict(gpu),
        "workers": workers,
        "gpus_per_worker": group,
        "weight_gb_per_gpu": round(share / 1e9, 1),
        "kv_bytes_per_token": cached,
        "flop_per_token": flop,
        **{k: v for k, v in ranged[1].items() if k != "use"},
        "range": ranged,
    }

"""Estimate of a dump's cost on GPUs: placement of the weights, workers, rate and GPU-hours."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from teacher_dump.config import DumpConfig
from teacher_dump.errors import DumpError
from teacher_dump.model.registry import ModelShape

PREFILL_SHARES = (0.35, 0.5, 0.6)
"""Share of the peak that prefill reaches, logits at every position included: low, expected, high. An assumption:
replace it with the tokens per second that `teacher-dump` prints on your machine."""
MEMORY_SHARE = 0.9
"""Share of a GPU's memory that vLLM takes if --gpu-memory-utilization is not given."""
MAX_WEIGHT_SHARE = 0.75
"""Share of vLLM's memory that weights may fill; the rest is for the KV cache, activations and logits."""
DEFAULT_MACHINE = "8xH100"
_DEFAULT_STEP_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU, from NVIDIA's data sheets (SXM, where there is one)."""

    flops: float
    """Dense bfloat16 FLOP/s: half of the figure with sparsity."""
    memory_bytes: float
    bandwidth: float
    """Of the memory, bytes/s."""


GPUS = {
    "A100": GpuSpec(312e12, 80e9, 2.04e12),
    "A100-40GB": GpuSpec(312e12, 40e9, 1.56e12),
    "B200": GpuSpec(2250e12, 180e9, 8.0e12),
    "H100": GpuSpec(989e12, 80e9, 3.35e12),
    "H200": GpuSpec(989e12, 141e9, 4.8e12),
    "L40S": GpuSpec(362e12, 48e9, 0.864e12),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Distribution of a teacher over the GPUs of a machine."""

    gpu_name: str
    gpu: GpuSpec
    num_gpus: int
    gpus_per_worker: int
    bytes_per_weight: int
    weight_bytes: float
    """Of the whole teacher."""
    memory_bytes: float
    """That vLLM may take on each GPU."""

    @property
    def workers(self) -> int:
        """Engines on the machine."""
        return self.num_gpus // self.gpus_per_worker

    @property
    def used_gpus(self) -> int:
        """GPUs that have an engine."""
        return self.workers * self.gpus_per_worker

    @property
    def weight_bytes_per_gpu(self) -> float:
        """Weights on each GPU."""
        return self.weight_bytes / self.gpus_per_worker


def gpu_cost(
    config: DumpConfig,
    machine: str,
    *,
    parameters: int,
    shape: ModelShape,
    flop_per_token: float,
    tokens: int | None,
) -> tuple[dict[str, Any], list[str]]:
    """Estimate memory, time and GPU-hours.

    Args:
        config: The settings of the dump.
        machine: Number and name of the GPUs, such as "8xH100".
        parameters: Weights of the teacher.
        shape: Its dimensions.
        flop_per_token: FLOP of prefill per token.
        tokens: Tokens of the corpus, None if unknown.

    Returns:
        The facts as JSON, and the steps that lead to them.

    Raises:
        DumpError: The machine is unknown, or cannot hold the teacher.
    """
    placement = place(config, machine, parameters)
    kv_bytes = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim
    how = [_memory_step(config, placement, kv_bytes), _workers_step(config, placement)]
    exchanged = _exchanged_bytes(config, placement, shape)
    if exchanged is not None:
        how.append(exchanged[1])
    estimates = []
    for share in PREFILL_SHARES:
        rate = placement.used_gpus * placement.gpu.flops * share / flop_per_token
        facts: dict[str, Any] = {"use": share, "tokens_per_s": round(rate)}
        if tokens is not None:
            hours = tokens / rate / 3600
            facts |= {"hours": round(hours, 1), "gpu_hours": round(hours * placement.used_gpus, 1)}
        estimates.append(facts)
        how.append(_rate_step(config, placement, share, flop_per_token, exchanged and exchanged[0]))
    expected = estimates[1]
    if tokens is not None:
        how.append(
            f"GPU-hours: {tokens:,} / {expected['tokens_per_s']:,} tokens/s / 3600 x {placement.used_gpus} GPUs = "
            f"{expected['gpu_hours']:,}; cost = GPU-hours x your price of one; starts of engines are not counted"
        )
    return {
        "machine": machine,
        "gpu": asdict(placement.gpu),
        "workers": placement.workers,
        "gpus_per_worker": placement.gpus_per_worker,
        "weight_gb_per_gpu": round(placement.weight_bytes_per_gpu / 1e9, 1),
        "kv_bytes_per_token": kv_bytes,
        "flop_per_token": flop_per_token,
        **{name: value for name, value in expected.items() if name != "use"},
        "range": estimates,
    }, how


def parse_machine(text: str) -> tuple[int, str]:
    """Parse "8xH100" to (8, "H100").

    Raises:
        DumpError: The GPU is unknown; the message lists the known ones.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", text)
    if match is None or match[2] not in GPUS or match[1] == "0":
        raise DumpError(f"--machine {text}: expected a number and a GPU, as in 8xH100; known: {', '.join(GPUS)}")
    return int(match[1] or 1), match[2]


def place(config: DumpConfig, machine: str, parameters: int) -> Placement:
    """Choose the GPUs per worker: the requested number, or the least power of two that leaves room for the KV cache.

    Raises:
        DumpError: The machine is unknown, or cannot hold the model.
    """
    num_gpus, gpu_name = parse_machine(machine)
    gpu = GPUS[gpu_name]
    width = 1 if config.quantization in ("fp8", "int8") else 2
    weight_bytes = width * parameters
    memory_bytes = (config.gpu_memory_utilization or MEMORY_SHARE) * gpu.memory_bytes
    requested = config.tensor_parallel_size * config.pipeline_parallel_size
    gpus_per_worker = requested
    while requested == 1 and weight_bytes / gpus_per_worker > MAX_WEIGHT_SHARE * memory_bytes:
        gpus_per_worker *= 2
    placement = Placement(
        gpu_name=gpu_name,
        gpu=gpu,
        num_gpus=num_gpus,
        gpus_per_worker=gpus_per_worker,
        bytes_per_weight=width,
        weight_bytes=weight_bytes,
        memory_bytes=memory_bytes,
    )
    if gpus_per_worker > num_gpus or placement.weight_bytes_per_gpu > memory_bytes:
        raise DumpError(
            f"--machine {machine}: {config.model} has {weight_bytes / 1e9:.0f} GB of weights, "
            f"{placement.weight_bytes_per_gpu / 1e9:.0f} GB on each of {gpus_per_worker} GPUs with "
            f"{memory_bytes / 1e9:.0f} GB for vLLM; expected a larger machine, or more --tensor-parallel-size"
        )
    return placement


def _memory_step(config: DumpConfig, placement: Placement, kv_bytes: int) -> str:
    share = placement.weight_bytes_per_gpu
    max_tokens = (placement.memory_bytes - share) * placement.gpus_per_worker / kv_bytes
    return (
        f"memory: {placement.weight_bytes / 1e9:.1f} GB of weights ({placement.bytes_per_weight} bytes each) over "
        f"{placement.gpus_per_worker} GPU(s) = {share / 1e9:.1f} GB each; vLLM may take "
        f"{placement.memory_bytes / 1e9:.1f} GB of {placement.gpu.memory_bytes / 1e9:.0f}; a token's keys and values "
        f"take {kv_bytes:,} bytes, so {max_tokens:,.0f} tokens would fill the rest; a step holds "
        f"{config.max_num_batched_tokens or _DEFAULT_STEP_TOKENS:,} (activations not counted)"
    )


def _workers_step(config: DumpConfig, placement: Placement) -> str:
    requested = config.tensor_parallel_size * config.pipeline_parallel_size
    size = config.tensor_parallel_size if requested > 1 else placement.gpus_per_worker
    options = f"--tensor-parallel-size {size}"
    if config.pipeline_parallel_size > 1:
        options += f" --pipeline-parallel-size {config.pipeline_parallel_size}"
    return (
        f"workers: {placement.num_gpus} x {placement.gpu_name} / {placement.gpus_per_worker} = {placement.workers}, "
        f"each with {options}"
    )


def _exchanged_bytes(config: DumpConfig, placement: Placement, shape: ModelShape) -> tuple[float, str] | None:
    """Return the bytes per token that tensor parallelism exchanges on each GPU, and the step; None without it."""
    split = placement.gpus_per_worker // config.pipeline_parallel_size
    if split <= 1:
        return None
    exchanged = 2 * shape.layers * 2 * (split - 1) / split * shape.hidden_size * 2
    return exchanged, (
        f"exchange: 2 sums per layer over {split} GPUs: 2 x {shape.layers} x 2 x {split - 1}/{split} x "
        f"{shape.hidden_size:,} x 2 bytes = {exchanged / 1e6:.2f} MB per token and GPU"
    )


def _rate_step(
    config: DumpConfig, placement: Placement, share: float, flop_per_token: float, exchanged: float | None
) -> str:
    gpus, flops = placement.used_gpus, placement.gpu.flops
    rate = gpus * flops * share / flop_per_token
    rate_per_worker = rate / placement.workers
    exchange = "" if exchanged is None else f", {exchanged * rate_per_worker / 1e9:,.0f} GB/s exchanged per GPU"
    return (
        f"rate at {share:.0%} of {flops / 1e12:,.0f} TFLOP/s: {gpus} x {flops * share / 1e12:,.0f} T / "
        f"{flop_per_token / 1e9:.2f} G = {rate:,.0f} tokens/s; a worker's task takes "
        f"{config.task_tokens / rate_per_worker:,.0f} s{exchange}"
    )

"""Choose the floating-point type and the number of threads, and describe the machine.

All commands and benchmarks use these functions, so that `--dtype auto` and the number of threads mean the same
everywhere. Callers pass in the torch module where it is needed, because this package does not import it.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from dataclasses import dataclass
from typing import Any

from shards.runtime.processor import Processor, processor

__all__ = [
    "DTYPES",
    "DtypeChoice",
    "Gpu",
    "Processor",
    "ThreadChoice",
    "bfloat16_slowdown",
    "bfloat16_warning",
    "choose_dtype",
    "cpu_lists",
    "describe",
    "gpu",
    "num_threads",
    "processor",
    "use_threads",
    "vllm_binding",
]

DTYPES = ("auto", "float32", "bfloat16")
"""Values of `--dtype` in all commands. evalkit also accepts float16."""

_ONEDNN_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that cap oneDNN's instruction set, in its order of precedence."""
_CAPS_WITHOUT_BFLOAT16 = (
    "sse41",
    "avx",
    "avx2",
    "avx2_vnni",
    "avx2_vnni_2",
    "avx512_core",
    "avx512_core_vnni",
)
"""Values of `_ONEDNN_CAPS` under which oneDNN emulates bfloat16."""
_ATEN_CAP = "ATEN_CPU_CAPABILITY"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PROBE_WIDTH = 256
_PROBE_S = 0.1
"""Seconds of repeated timing. One product takes about 0.2 s at most, if bfloat16 is emulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU, described by torch."""

    name: str
    bfloat16: bool
    """Whether it has bfloat16 instructions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DtypeChoice:
    """The floating-point type of a run, and the reason for it."""

    dtype: str
    """float32, bfloat16 or float16, never auto."""
    requested: str
    """The user's choice, by default auto."""
    reason: str
    """For display: "auto: the processor has AVX-512 BF16", "as given"."""
    emulated: bool = False
    """Whether the user chose bfloat16 on a machine without bfloat16 instructions."""

    def __str__(self) -> str:
        return f"{self.dtype} ({self.reason})"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadChoice:
    """The number of threads to compute with, and the reason for it."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.number} thread{'s' * (self.number != 1)} ({self.reason})"


def gpu(torch: Any) -> Gpu | None:
    """Return the GPU that the torch module uses, None without one."""
    if not torch.cuda.is_available():
        return None
    return Gpu(
        name=str(torch.cuda.get_device_name()), bfloat16=bool(torch.cuda.is_bf16_supported(including_emulation=False))
    )


def choose_dtype(requested: str, *, gpu: Gpu | None, cpu: Processor | None = None) -> DtypeChoice:
    """Choose the floating-point type of a run.

    `auto` is bfloat16 on a GPU or a processor with bfloat16 instructions (AVX-512 BF16, AMX, Arm BF16), else float32.
    The variables ONEDNN_MAX_CPU_ISA, DNNL_MAX_CPU_ISA and ATEN_CPU_CAPABILITY, which cap the instructions that
    libraries use, are respected.

    Args:
        requested: auto, float32, bfloat16 or float16.
        gpu: The device of the run, None for the CPU.
        cpu: The processor; by default this machine's.
    """
    if requested not in ("auto", "bfloat16"):
        return DtypeChoice(dtype=requested, requested=requested, reason="as given")
    if gpu is not None:
        has, reason = gpu.bfloat16, f"{gpu.name} {'has' if gpu.bfloat16 else 'does not compute in'} bfloat16"
    else:
        cpu = processor() if cpu is None else cpu
        cap = _cap(cpu)  # "" also for a processor without bfloat16
        has = bool(cpu.bfloat16) and not cap
        reason = f"the processor has {cpu.bfloat16}" if has else cap or "the processor does not compute in bfloat16"
    if requested == "auto":
        return DtypeChoice(dtype="bfloat16" if has else "float32", requested=requested, reason=f"auto: {reason}")
    reason = "as given" if has else f"as given, although {reason}"
    return DtypeChoice(dtype="bfloat16", requested=requested, reason=reason, emulated=not has)


def bfloat16_warning(choice: DtypeChoice, torch: Any, *, device: str = "cpu") -> str | None:
    """Return one line about the cost of emulated bfloat16, None if bfloat16 is not emulated.

    The slowdown is measured with a small matrix product in both types, in well under a second.

    Args:
        choice: The type of the run.
        torch: The torch module.
        device: Device to measure on.
    """
    if not choice.emulated:
        return None
    reason, slowdown = choice.reason.removeprefix("as given, although "), bfloat16_slowdown(torch, device=device)
    return (
        f"warning: --dtype bfloat16: {reason}; a matrix product takes {slowdown:.2g} times as long as in float32 "
        "(measured now); --dtype auto takes float32"
    )


def use_threads(torch: Any, requested: int = 0) -> ThreadChoice:
    """Make the torch module compute with `num_threads(requested)` threads, and return that choice."""
    choice = num_threads(requested)
    torch.set_num_threads(choice.number)
    return choice


def bfloat16_slowdown(torch: Any, *, device: str = "cpu") -> float:
    """Return the time of a bfloat16 matrix product over that of a float32 one, measured now on `device`.

    One thread is used on a CPU: on a busy machine, two that wait for each other would measure other programs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _product_s(torch, torch.bfloat16, device) / _product_s(torch, torch.float32, device)
    finally:
        torch.set_num_threads(threads)


def _product_s(torch: Any, dtype: Any, device: str) -> float:
    """Return the shortest time of a small matrix product within `_PROBE_S` seconds."""
    small = torch.ones(32, 32, device=device, dtype=dtype)
    torch.mm(small, small)  # the first call loads the kernel
    wide = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, device=device, dtype=dtype)
    best, end, now = math.inf, time.perf_counter() + _PROBE_S, 0.0
    while now < end:
        begin = time.perf_counter()
        torch.mm(wide, wide)
        if device != "cpu":
            torch.cuda.synchronize()
        now = time.perf_counter()
        best = min(best, now - begin)
    return best


def num_threads(requested: int = 0, *, cpu: Processor | None = None) -> ThreadChoice:
    """Choose the number of threads: `requested`, else OMP_NUM_THREADS, else the usable physical cores.

    Usable are the cores within the affinity of this process and the CPU quota of its cgroup.

    Args:
        requested: The user's choice, 0 if there is none.
        cpu: The processor; by default this machine's.
    """
    if requested > 0:
        return ThreadChoice(number=requested, reason="as given")
    for variable in _THREADS:
        first = os.environ.get(variable, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return ThreadChoice(number=int(first), reason=variable)
    cpu = processor() if cpu is None else cpu
    number = max(1, len(cpu.usable_cores))
    if number < len(cpu.cores):
        return ThreadChoice(number=number, reason=f"the cgroup grants {cpu.quota:.3g} CPUs")
    return ThreadChoice(number=number, reason="physical cores")


def cpu_lists(workers: int = 1, *, cpu: Processor | None = None) -> list[list[int]]:
    """Return the logical CPUs for the threads of each of several workers on this machine.

    The usable physical cores are divided evenly, neighbours together. If there are more workers than cores, several
    share one. OMP_NUM_THREADS limits the threads of a worker.

    Args:
        workers: Number of processes that compute at the same time.
        cpu: The processor; by default this machine's.
    """
    cpu = processor() if cpu is None else cpu
    cores = cpu.usable_cores or (0,)
    most = num_threads(cpu=cpu).number
    if workers >= len(cores):
        return [[cores[i * len(cores) // workers]] for i in range(workers)]
    bounds = [i * len(cores) // workers for i in range(workers + 1)]
    return [list(cores[begin:end])[:most] for begin, end in itertools.pairwise(bounds)]


def vllm_binding(workers: int = 1, *, cpu: Processor | None = None) -> str:
    """Return VLLM_CPU_OMP_THREADS_BIND for the workers of one engine: "0,1" for one, "0|1" for two on two cores.

    vLLM's own choice leaves one core of each worker idle, ignores the quota of the cgroup, and refuses several workers
    on one NUMA node.
    """
    return "|".join(",".join(map(str, cpus)) for cpus in cpu_lists(workers, cpu=cpu))


def describe(torch: Any = None, *, cpu: Processor | None = None) -> str:
    """Return a description of the machine in one line, for records and benchmark pages.

    Example: "AMD EPYC (x86_64, AVX-512 with bfloat16), 2 cores, 24 GiB, no GPU".

    Args:
        torch: The torch module, to name the GPU, too.
        cpu: The processor; by default this machine's.
    """
    cpu = processor() if cpu is None else cpu
    parts = [part for part in (cpu.architecture, cpu.instructions) if part]
    cap = _cap(cpu)
    cores = f"{len(cpu.usable_cores)} core{'s' * (len(cpu.usable_cores) != 1)}"
    line = f"{cpu.name} ({', '.join(parts + [cap] * bool(cap))}), {cores}"
    if cpu.memory_bytes:
        line += f", {round(cpu.memory_bytes / 2**30)} GiB"
    if torch is not None:
        device = gpu(torch)
        line += f", {device.name}" if device else ", no GPU"
    return line


def _cap(cpu: Processor) -> str:
    """Return the variable that disables the bfloat16 instructions of the processor, with its value; "" if none does."""
    if not cpu.bfloat16 or cpu.architecture not in ("x86_64", "AMD64", "i686"):
        return ""
    for variable in _ONEDNN_CAPS:
        if value := os.environ.get(variable, ""):
            if value.lower() in _CAPS_WITHOUT_BFLOAT16:
                return f"{variable}={value} caps the processor"
            break
    value = os.environ.get(_ATEN_CAP, "")
    return f"{_ATEN_CAP}={value} caps the processor" if value in ("default", "avx2") else ""

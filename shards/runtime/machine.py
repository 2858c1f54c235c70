"""The processor: its name, the floating-point type it computes in, and the number of threads to use.

All commands and benchmarks ask here, so that `--dtype auto` and the number of threads mean the same everywhere. What
only torch can say comes from the torch module that the caller passes in: this package imports none.
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
"""What `--dtype` accepts everywhere; evalkit also accepts float16."""

_ONEDNN_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that cap oneDNN, in its own order of precedence."""
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
"""Seconds after which a timing is not repeated; one product takes at most about 0.2 s where bfloat16 is emulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU, as torch describes it."""

    name: str
    bfloat16: bool
    """Whether it computes in bfloat16 itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DtypeChoice:
    """The floating-point type of a run, and the reason for it."""

    dtype: str
    """float32, bfloat16 or float16, never auto."""
    asked: str
    """What the user gave, auto where nothing."""
    why: str
    """A few words for people: "auto: the processor has AVX-512 BF16", "as given"."""
    emulated: bool = False
    """bfloat16 was named although the machine does not compute in it: see `bfloat16_warning`."""

    def __str__(self) -> str:
        return f"{self.dtype} ({self.why})"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadChoice:
    """The number of threads to compute with, and the reason for it."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"{self.number} thread{'s' * (self.number != 1)} ({self.why})"


def gpu(torch: Any) -> Gpu | None:
    """Return the GPU that `torch`, the module, would use; None without one."""
    if not torch.cuda.is_available():
        return None
    return Gpu(
        name=str(torch.cuda.get_device_name()), bfloat16=bool(torch.cuda.is_bf16_supported(including_emulation=False))
    )


def choose_dtype(asked: str, *, gpu: Gpu | None, cpu: Processor | None = None) -> DtypeChoice:
    """Settle the floating-point type.

    `auto` is bfloat16 on a GPU that has it and on a processor that computes in it (AVX-512 BF16, AMX, Arm BF16),
    float32 elsewhere. A processor whose libraries a user capped (ONEDNN_MAX_CPU_ISA, DNNL_MAX_CPU_ISA,
    ATEN_CPU_CAPABILITY) counts as what it is capped to.

    Args:
        asked: auto, float32, bfloat16 or float16.
        gpu: The device of the run, None for the CPU.
        cpu: The processor; this machine's where None.
    """
    if asked not in ("auto", "bfloat16"):
        return DtypeChoice(dtype=asked, asked=asked, why="as given")
    if gpu is not None:
        has, why = gpu.bfloat16, f"{gpu.name} {'has' if gpu.bfloat16 else 'does not compute in'} bfloat16"
    else:
        cpu = processor() if cpu is None else cpu
        cap = _cap(cpu)  # "" too where the processor has no bfloat16 that a cap could take away
        has = bool(cpu.bfloat16) and not cap
        why = f"the processor has {cpu.bfloat16}" if has else cap or "the processor does not compute in bfloat16"
    if asked == "auto":
        return DtypeChoice(dtype="bfloat16" if has else "float32", asked=asked, why=f"auto: {why}")
    why = "as given" if has else f"as given, although {why}"
    return DtypeChoice(dtype="bfloat16", asked=asked, why=why, emulated=not has)


def bfloat16_warning(choice: DtypeChoice, torch: Any, *, device: str = "cpu") -> str | None:
    """Return one line that says how much slower this machine is in bfloat16; None where the choice is sound.

    The slowdown is measured here: a small matrix product in both types, well under a second in total.
    """
    if not choice.emulated:
        return None
    why, slowdown = choice.why.removeprefix("as given, although "), bfloat16_slowdown(torch, device=device)
    return (
        f"warning: --dtype bfloat16: {why}; a matrix product takes {slowdown:.2g} times as long as in float32 "
        "(measured now); --dtype auto takes float32"
    )


def use_threads(torch: Any, asked: int = 0) -> ThreadChoice:
    """Make `torch`, the module, compute with `num_threads(asked)` threads, and return that choice."""
    choice = num_threads(asked)
    torch.set_num_threads(choice.number)
    return choice


def bfloat16_slowdown(torch: Any, *, device: str = "cpu") -> float:
    """Return the time of a bfloat16 matrix product over that of a float32 one, measured now on `device`.

    One thread on a CPU: two that wait for each other on a busy machine would measure the other programs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _product_s(torch, torch.bfloat16, device) / _product_s(torch, torch.float32, device)
    finally:
        torch.set_num_threads(threads)


def _product_s(torch: Any, dtype: Any, device: str) -> float:
    """Return the seconds of a small matrix product, the best of as many as fit in `_PROBE_S`."""
    small = torch.ones(32, 32, device=device, dtype=dtype)
    torch.mm(small, small)  # the first call loads what it needs
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


def num_threads(asked: int = 0, *, cpu: Processor | None = None) -> ThreadChoice:
    """Settle the number of threads: `asked` wins, then OMP_NUM_THREADS, then the physical cores that are usable.

    Usable are the cores within this process' affinity and its cgroup's quota of CPU time.

    Args:
        asked: What the user gave; 0 where nothing.
        cpu: The processor; this machine's where None.
    """
    if asked > 0:
        return ThreadChoice(number=asked, why="as given")
    for variable in _THREADS:
        first = os.environ.get(variable, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return ThreadChoice(number=int(first), why=variable)
    cpu = processor() if cpu is None else cpu
    number = max(1, len(cpu.usable_cores))
    if number < len(cpu.cores):
        return ThreadChoice(number=number, why=f"the cgroup grants {cpu.quota:.3g} CPUs")
    return ThreadChoice(number=number, why="physical cores")


def cpu_lists(workers: int = 1, *, cpu: Processor | None = None) -> list[list[int]]:
    """Return the logical CPUs that each of several workers on this machine binds its threads to.

    The usable physical cores are dealt out evenly, neighbours together. Where there are more workers than cores,
    several share one. OMP_NUM_THREADS, where set, caps the threads of a worker.

    Args:
        workers: Processes that compute at the same time.
        cpu: The processor; this machine's where None.
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

    vLLM's own choice keeps a core of each worker free, takes no notice of a cgroup's quota, and refuses several workers
    on one NUMA node.
    """
    return "|".join(",".join(map(str, cpus)) for cpus in cpu_lists(workers, cpu=cpu))


def describe(torch: Any = None, *, cpu: Processor | None = None) -> str:
    """Return one line that names the machine, for records and benchmark pages.

    Example: "AMD EPYC (x86_64, AVX-512 with bfloat16), 2 cores, 24 GiB, no GPU".

    Args:
        torch: The torch module, where the caller has it: then the GPU is named, too.
        cpu: The processor; this machine's where None.
    """
    cpu = processor() if cpu is None else cpu
    parts = [part for part in (cpu.architecture, cpu.instructions) if part]
    cap = _cap(cpu)
    cores = f"{len(cpu.usable_cores)} core{'s' * (len(cpu.usable_cores) != 1)}"
    line = f"{cpu.name} ({', '.join(parts + [cap] * bool(cap))}), {cores}"
    if cpu.memory_bytes:
        line += f", {round(cpu.memory_bytes / 2**30)} GiB"
    if torch is not None:
        found = gpu(torch)
        line += f", {found.name}" if found else ", no GPU"
    return line


def _cap(cpu: Processor) -> str:
    """Return which variable keeps torch from computing in bfloat16 on a processor that has it; "" for none."""
    if not cpu.bfloat16 or cpu.architecture not in ("x86_64", "AMD64", "i686"):
        return ""
    for variable in _ONEDNN_CAPS:
        if value := os.environ.get(variable, ""):
            if value.lower() in _CAPS_WITHOUT_BFLOAT16:
                return f"{variable}={value} caps the processor"
            break
    value = os.environ.get(_ATEN_CAP, "")
    return f"{_ATEN_CAP}={value} caps the processor" if value in ("default", "avx2") else ""

"""The processor: its name, the floating-point type it computes in, and the number of threads to use.

All commands and benchmarks ask here, so that `--dtype auto` and the number of threads mean the same everywhere. What
only torch can say comes from the torch module that the caller passes in: this package imports none.

Linux is read in full: /proc, /sys, affinity and cgroups of both versions. Elsewhere the answers are safe ones: float32,
and one thread per CPU that Python reports.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

DTYPES = ("auto", "float32", "bfloat16")
"""What `--dtype` accepts everywhere; evalkit also accepts float16."""

_ROOT = Path("/")
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
class Processor:
    """What this process may use of the processor."""

    name: str
    """Marketing name, the architecture's name where there is none."""
    architecture: str
    """As `platform.machine` says: x86_64, aarch64, ..."""
    features: frozenset[str]
    """Instruction sets, as the Linux kernel names them."""
    cores: tuple[int, ...]
    """One logical CPU of each physical core that this process may run on (affinity, cpusets), ascending."""
    logical_cpus: int
    """Logical CPUs that this process may run on."""
    quota: float | None
    """CPUs' worth of time that the cgroup grants, None without a limit."""
    memory_bytes: int
    """Memory of the machine, 0 where unknown."""

    @property
    def usable_cores(self) -> tuple[int, ...]:
        """The cores to compute on: as many as the cgroup's quota, rounded up, and at least one."""
        return self.cores if self.quota is None else self.cores[: max(1, math.ceil(self.quota))]

    @property
    def instructions(self) -> str:
        """The widest instruction set that matters here, for people; "" where none is known."""
        for flag, name in (
            ("amx_bf16", "AMX"),
            ("avx512_bf16", "AVX-512 with bfloat16"),
            ("avx512f", "AVX-512"),
            ("avx2", "AVX2"),
            ("bf16", "bfloat16"),
            ("asimd", "NEON"),
        ):
            if flag in self.features:
                return name
        return ""

    @property
    def bfloat16(self) -> str:
        """The instructions that compute in bfloat16, "" where there are none. Caps that a user set do not count."""
        names = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}
        return next((name for flag, name in names.items() if flag in self.features), "")


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


def processor(*, root: Path = _ROOT, allowed: Iterable[int] | None = None) -> Processor:
    """Describe the processor.

    Args:
        root: Folder that holds `proc` and `sys`, for tests.
        allowed: Logical CPUs to count; those that this process may run on where None.
    """
    cpus = sorted(_allowed() if allowed is None else set(allowed))
    facts = _first_cpu(root)
    return Processor(
        name=facts.get("model name") or facts.get("cpu model") or platform.machine() or "unknown processor",
        architecture=platform.machine(),
        features=frozenset((facts.get("flags") or facts.get("features") or "").split()),
        cores=_one_per_core(root, cpus),
        logical_cpus=len(cpus),
        quota=_cgroup_quota(root),
        memory_bytes=_memory_bytes(),
    )


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
        return DtypeChoice(dtype=asked, why="as given")
    if gpu is not None:
        has, why = gpu.bfloat16, f"{gpu.name} {'has' if gpu.bfloat16 else 'does not compute in'} bfloat16"
    else:
        cpu = processor() if cpu is None else cpu
        cap = _cap(cpu)
        has = bool(cpu.bfloat16) and not cap
        why = f"the processor has {cpu.bfloat16}" if has else cap or "the processor does not compute in bfloat16"
    if asked == "auto":
        return DtypeChoice(dtype="bfloat16" if has else "float32", why=f"auto: {why}")
    return DtypeChoice(dtype="bfloat16", why="as given" if has else f"as given, although {why}", emulated=not has)


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


def describe(torch: Any = None, *, cpu: Processor | None = None) -> str:
    """Return one line that names the machine, for records and benchmark pages.

    Example: "AMD EPYC (x86_64, AVX-512 with bfloat16), 2 cores, 24 GiB, no GPU".

    Args:
        torch: The torch module, where the caller has it: then the GPU is named, too.
        cpu: The processor; this machine's where None.
    """
    cpu = processor() if cpu is None else cpu
    parts = [part for part in (cpu.architecture, cpu.instructions) if part]
    cap = _cap(cpu) if cpu.bfloat16 else ""
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
    if cpu.architecture not in ("x86_64", "AMD64", "i686"):
        return ""
    for variable in _ONEDNN_CAPS:
        if value := os.environ.get(variable, ""):
            if value.lower() in _CAPS_WITHOUT_BFLOAT16:
                return f"{variable}={value} caps the processor"
            break
    value = os.environ.get(_ATEN_CAP, "")
    return f"{_ATEN_CAP}={value} caps the processor" if value in ("default", "avx2") else ""


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _first_cpu(root: Path) -> dict[str, str]:
    """Return what /proc/cpuinfo says of its first CPU, names in lower case; {} where there is no such file."""
    facts: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if not name.strip():
                    break
                facts[name.strip().lower()] = value.strip()
    except OSError:
        pass
    return facts


def _one_per_core(root: Path, cpus: list[int]) -> tuple[int, ...]:
    """Return the first CPU of each physical core; every CPU counts as a core where the kernel does not say."""
    first: dict[str, int] = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list") or str(cpu)
        first.setdefault(siblings, cpu)
    return tuple(sorted(first.values()))


def _cgroup_quota(root: Path) -> float | None:
    """Return the CPUs' worth of time that the tightest cgroup of this process grants, None without a limit."""
    paths = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" or "cpu" in controllers.split(","):
            paths["cgroup2" if controllers == "" else "cgroup"] = path
    found: list[float | None] = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = (*system.split(), "", "", "")[:3]
        if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        top, place = mount.split()[3:5]
        inner = PurePosixPath(paths[kind])
        below = inner.relative_to(top).parts if inner.is_relative_to(top) else ()
        folder = root / place.lstrip("/")
        found += [_quota_in(folder.joinpath(*below[:level])) for level in range(len(below) + 1)]
    return min((quota for quota in found if quota is not None), default=None)


def _quota_in(folder: Path) -> float | None:
    """Return a cgroup's own limit: `cpu.max` of version 2, `cpu.cfs_*_us` of version 1."""
    both = _text(folder / "cpu.max").split()
    if not both:
        both = [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = (int(value) for value in both)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

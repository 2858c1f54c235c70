"""Read the processor's name, instruction sets and physical cores, and the CPU quota of the process.

On Linux the sources are /proc, /sys, the affinity of the process, and cgroups of both versions. On other systems no
instruction sets are reported, and every CPU that Python reports counts as a core.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Processor:
    """The processor, as far as this process may use it."""

    name: str
    """Marketing name, or the name of the architecture."""
    architecture: str
    """Value of `platform.machine`: x86_64, aarch64, ..."""
    features: frozenset[str]
    """Instruction sets, by their names in the Linux kernel."""
    cores: tuple[int, ...]
    """One logical CPU of each physical core that this process may run on (affinity, cpusets), ascending."""
    logical_cpus: int
    """Logical CPUs that this process may run on."""
    quota: float | None
    """CPU time per time that the cgroup grants, in CPUs; None without a limit."""
    memory_bytes: int
    """Memory of the machine, 0 if unknown."""

    @property
    def usable_cores(self) -> tuple[int, ...]:
        """The cores to compute on: at most the cgroup's quota, rounded up, and at least one."""
        return self.cores if self.quota is None else self.cores[: max(1, math.ceil(self.quota))]

    @property
    def usable_cpus(self) -> int:
        """Number of logical CPUs to run programs on, at most the cgroup's quota, rounded up, and at least one."""
        return self.logical_cpus if self.quota is None else max(1, min(self.logical_cpus, math.ceil(self.quota)))

    @property
    def instructions(self) -> str:
        """Display name of the widest relevant instruction set, "" if there is none."""
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
        """Display name of the bfloat16 instructions, "" if there are none. Caps set by the user are ignored."""
        names = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}
        return next((name for flag, name in names.items() if flag in self.features), "")


def processor(*, root: Path = _ROOT, allowed: Iterable[int] | None = None) -> Processor:
    """Describe the processor.

    Args:
        root: Directory that holds `proc` and `sys`, for tests.
        allowed: Logical CPUs to count; by default those that this process may run on.
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


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _first_cpu(root: Path) -> dict[str, str]:
    """Return the fields of the first CPU in /proc/cpuinfo, names in lower case; {} if there is no such file."""
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
    """Return the first CPU of each physical core. Without a topology, every CPU counts as a core."""
    first: dict[str, int] = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list") or str(cpu)
        first.setdefault(siblings, cpu)
    return tuple(sorted(first.values()))


def _cgroup_quota(root: Path) -> float | None:
    """Return the smallest quota of the cgroups of this process, in CPUs; None without a limit."""
    paths = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" or "cpu" in controllers.split(","):
            paths["cgroup2" if controllers == "" else "cgroup"] = path
    quotas: list[float | None] = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = (*system.split(), "", "", "")[:3]
        if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        top, place = mount.split()[3:5]
        inner = PurePosixPath(paths[kind])
        below = inner.relative_to(top).parts if inner.is_relative_to(top) else ()
        folder = root / place.lstrip("/")
        quotas += [_quota_in(folder.joinpath(*below[:level])) for level in range(len(below) + 1)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_in(folder: Path) -> float | None:
    """Return the limit of one cgroup: `cpu.max` of version 2, `cpu.cfs_*_us` of version 1."""
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

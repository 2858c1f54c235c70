"""The processor as Linux describes it: name, instruction sets, physical cores, and the CPU time that cgroups grant.

Linux is read in full: /proc, /sys, affinity, and cgroups of both versions. Elsewhere the answers are safe ones: no
instruction sets, and one core per CPU that Python reports.
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
    def usable_cpus(self) -> int:
        """Logical CPUs to run programs on: within affinity and the cgroup's quota, rounded up, at least one."""
        return self.logical_cpus if self.quota is None else max(1, min(self.logical_cpus, math.ceil(self.quota)))

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

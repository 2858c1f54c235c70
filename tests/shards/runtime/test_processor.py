"""Tests of reading the processor, in directories that imitate /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.runtime import machine
from shards.runtime.machine import Processor

AVX2 = "fpu sse2 avx avx2 fma"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cpu(features: str = AVX2, *, cores: int = 4, quota: float | None = None, architecture: str = "x86_64") -> Processor:
    return Processor(
        name="Some CPU",
        architecture=architecture,
        features=frozenset(features.split()),
        cores=tuple(range(cores)),
        logical_cpus=cores,
        quota=quota,
        memory_bytes=8 << 30,
    )


def topology(root: Path, siblings: dict[int, str]) -> None:
    write(
        root / "proc/cpuinfo", f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {AVX2}\n\nprocessor\t: 1\n"
    )
    for number, text in siblings.items():
        write(root / f"sys/devices/system/cpu/cpu{number}/topology/core_cpus_list", f"{text}\n")


def test_hardware_threads_of_one_core_count_once(tmp_path: Path) -> None:
    topology(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"})
    found = machine.processor(root=tmp_path, allowed={0, 1, 4, 5})
    assert (found.cores, found.logical_cpus, found.name) == ((0, 1), 4, "Some CPU @ 2 GHz")
    assert found.instructions == "AVX2"
    assert machine.num_threads(cpu=found).number == 2


def test_only_cores_within_the_affinity_count(tmp_path: Path) -> None:
    topology(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"})
    assert machine.processor(root=tmp_path, allowed={4, 5}).cores == (4, 5)
    assert machine.processor(root=tmp_path, allowed={0, 4}).cores == (0,)


def test_without_a_topology_every_cpu_is_a_core(tmp_path: Path) -> None:
    found = machine.processor(root=tmp_path, allowed={0, 1, 2})
    assert found.cores == (0, 1, 2)
    assert found.name
    assert found.quota is None


def mounts(*lines: str) -> str:
    return "".join(f"{30 + i} 25 0:{i} {line}\n" for i, line in enumerate(lines))


def test_the_quota_of_cgroup_2_is_the_tightest_of_all_levels(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/user.slice/run.scope\n")
    write(tmp_path / "proc/self/mountinfo", mounts("/ /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw"))
    write(tmp_path / "sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n")
    write(tmp_path / "sys/fs/cgroup/user.slice/run.scope/cpu.max", "max 100000\n")
    assert machine.processor(root=tmp_path, allowed=range(8)).quota == 1.5
    write(tmp_path / "sys/fs/cgroup/user.slice/run.scope/cpu.max", "50000 100000\n")
    assert machine.processor(root=tmp_path, allowed=range(8)).quota == 0.5


def test_the_quota_of_cgroup_1_is_read_in_a_container(tmp_path: Path) -> None:
    """Docker mounts the container's own cgroup at the root of the hierarchy."""
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n0::/docker/ab\n")
    write(
        tmp_path / "proc/self/mountinfo",
        mounts(
            "/docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "/docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct",
        ),
    )
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert machine.processor(root=tmp_path, allowed=range(8)).quota == 3.0


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "3:cpu:/\n")
    write(tmp_path / "proc/self/mountinfo", mounts("/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"))
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.processor(root=tmp_path, allowed=range(8)).quota is None


def test_programs_side_by_side_take_logical_cpus_within_the_quota() -> None:
    assert cpu(cores=4).usable_cpus == 4
    assert cpu(cores=4, quota=1.5).usable_cpus == 2
    assert cpu(cores=4, quota=0.1).usable_cpus == 1

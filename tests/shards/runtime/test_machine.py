"""Tests of the choice of floating-point type and threads, and of the description of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shards.runtime import machine
from shards.runtime.machine import Gpu, Processor

AVX2 = "fpu sse2 avx avx2 fma"
AVX512 = f"{AVX2} avx512f avx512bw avx512_vnni"
AVX512_BF16 = f"{AVX512} avx512_bf16"
AMX = f"{AVX512_BF16} amx_tile amx_bf16"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)


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


@pytest.mark.parametrize(
    ("features", "architecture", "dtype", "said"),
    [
        (AVX2, "x86_64", "float32", "does not compute in bfloat16"),
        (AVX512, "x86_64", "float32", "does not compute in bfloat16"),
        (AVX512_BF16, "x86_64", "bfloat16", "AVX-512 BF16"),
        (AMX, "x86_64", "bfloat16", "AMX"),
        ("fp asimd bf16", "aarch64", "bfloat16", "Arm BF16"),
        ("fp asimd", "aarch64", "float32", "does not compute in bfloat16"),
        ("", "arm64", "float32", "does not compute in bfloat16"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_computes_in_it(
    features: str, architecture: str, dtype: str, said: str
) -> None:
    choice = machine.choose_dtype("auto", gpu=None, cpu=cpu(features, architecture=architecture))
    assert choice.dtype == dtype
    assert said in choice.reason
    assert not choice.emulated


def test_auto_follows_the_gpu_and_not_the_processor_beside_it() -> None:
    new, old = Gpu(name="NVIDIA H100", bfloat16=True), Gpu(name="Tesla T4", bfloat16=False)
    assert machine.choose_dtype("auto", gpu=new, cpu=cpu(AVX2)).dtype == "bfloat16"
    choice = machine.choose_dtype("auto", gpu=old, cpu=cpu(AMX))
    assert (choice.dtype, choice.reason) == ("float32", "auto: Tesla T4 does not compute in bfloat16")


@pytest.mark.parametrize(
    ("variable", "value", "dtype"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "float32"),
        ("DNNL_MAX_CPU_ISA", "avx2", "float32"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", "float32"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", "bfloat16"),
        ("ONEDNN_MAX_CPU_ISA", "ALL", "bfloat16"),
        ("ATEN_CPU_CAPABILITY", "avx2", "float32"),
        ("ATEN_CPU_CAPABILITY", "default", "float32"),
        ("ATEN_CPU_CAPABILITY", "avx512", "bfloat16"),
    ],
)
def test_a_capped_processor_counts_as_what_it_is_capped_to(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, dtype: str
) -> None:
    monkeypatch.setenv(variable, value)
    choice = machine.choose_dtype("auto", gpu=None, cpu=cpu(AVX512_BF16))
    assert choice.dtype == dtype
    assert (f"{variable}={value}" in choice.reason) == (dtype == "float32")


def test_onednns_newer_variable_is_asked_before_the_older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert machine.choose_dtype("auto", gpu=None, cpu=cpu(AMX)).dtype == "bfloat16"


def test_what_is_given_is_taken_and_bfloat16_without_hardware_is_marked() -> None:
    assert machine.choose_dtype("float32", gpu=None, cpu=cpu(AMX)).dtype == "float32"
    assert machine.choose_dtype("float16", gpu=None, cpu=cpu()).dtype == "float16"
    sound = machine.choose_dtype("bfloat16", gpu=None, cpu=cpu(AVX512_BF16))
    assert (sound.dtype, sound.emulated, sound.reason) == ("bfloat16", False, "as given")
    emulated = machine.choose_dtype("bfloat16", gpu=None, cpu=cpu(AVX2))
    assert (emulated.dtype, emulated.emulated) == ("bfloat16", True)


def test_the_warning_is_one_line_with_the_slowdown_measured_now() -> None:
    torch: Any = pytest.importorskip("torch")
    emulated = machine.choose_dtype("bfloat16", gpu=None, cpu=cpu(AVX2))
    line = machine.bfloat16_warning(emulated, torch)
    assert line is not None
    assert line.count("\n") == 0
    assert "times as long as in float32" in line
    assert machine.bfloat16_warning(machine.choose_dtype("auto", gpu=None, cpu=cpu(AVX2)), torch) is None


def test_the_probe_leaves_the_number_of_threads_as_it_was() -> None:
    torch: Any = pytest.importorskip("torch")
    before = torch.get_num_threads()
    assert machine.bfloat16_slowdown(torch) > 0
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_capped_processor_is_much_slower_in_bfloat16() -> None:
    """The fault that `auto` avoids. On a processor with AVX-512, oneDNN's cap brings it about."""
    pytest.importorskip("torch")
    if not {"avx512f"} <= machine.processor().features:
        pytest.skip("oneDNN is not asked for bfloat16 on this processor")
    program = "import torch; from shards.runtime import machine; print(machine.bfloat16_slowdown(torch))"
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    assert float(done.stdout) > 5


def test_threads_are_the_physical_cores_within_the_quota() -> None:
    assert machine.num_threads(cpu=cpu(cores=4)).number == 4
    limited = machine.num_threads(cpu=cpu(cores=4, quota=1.5))
    assert (limited.number, limited.reason) == (2, "the cgroup grants 1.5 CPUs")
    assert machine.num_threads(cpu=cpu(cores=4, quota=0.2)).number == 1
    assert machine.num_threads(cpu=cpu(cores=4, quota=64)).number == 4


def test_what_a_user_sets_wins_over_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert str(machine.num_threads(cpu=cpu())) == "3 threads (OMP_NUM_THREADS)"
    assert str(machine.num_threads(1, cpu=cpu())) == "1 thread (as given)"
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert machine.num_threads(cpu=cpu()).number == 4


def test_workers_share_the_cores_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.cpu_lists(1, cpu=cpu(cores=4)) == [[0, 1, 2, 3]]
    assert machine.cpu_lists(2, cpu=cpu(cores=4)) == [[0, 1], [2, 3]]
    assert machine.cpu_lists(3, cpu=cpu(cores=2)) == [[0], [0], [1]]
    assert machine.cpu_lists(2, cpu=cpu(cores=4, quota=1)) == [[0], [0]]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.cpu_lists(2, cpu=cpu(cores=4)) == [[0], [2]]


def test_one_line_describes_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.describe(cpu=cpu(AVX2, cores=2)) == "Some CPU (x86_64, AVX2), 2 cores, 8 GiB"
    none = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    assert machine.describe(none, cpu=cpu(AVX512_BF16, cores=1)) == (
        "Some CPU (x86_64, AVX-512 with bfloat16), 1 core, 8 GiB, no GPU"
    )
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "ONEDNN_MAX_CPU_ISA=AVX2 caps the processor" in machine.describe(cpu=cpu(AVX512_BF16))


def test_a_gpu_is_described_as_torch_does() -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_name=lambda: "NVIDIA H100",
        is_bf16_supported=lambda including_emulation: not including_emulation,
    )
    assert machine.gpu(SimpleNamespace(cuda=cuda)) == Gpu(name="NVIDIA H100", bfloat16=True)
    assert machine.gpu(SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))) is None


def test_this_machine_is_described_without_torch() -> None:
    program = (
        "import sys; from shards.runtime import machine; print(machine.describe()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert " core" in done.stdout

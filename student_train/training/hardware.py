"""Arithmetic and threads of a run, settled once for this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from shards.runtime import machine
from student_train.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What a run computes with, and why."""

    config: Config
    """Settings of the run, with `dtype` settled."""
    dtype: machine.DtypeChoice
    """Type of the forward and backward pass."""
    threads: machine.ThreadChoice
    """CPU threads of torch."""
    machine: str
    """The machine, in one line."""
    cpu_capability: str
    """Widest vector instructions that torch uses here: DEFAULT, AVX2, AVX512, ..."""
    gpu: str
    """Name of the GPU that computes; "" for the processor."""
    ranks: int
    """Number of processes that train together."""

    def __str__(self) -> str:
        return f"{self.dtype}, {self.threads}"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry `hardware` of a run's record."""
        return {
            "machine": self.machine,
            "dtype": self.dtype.dtype,
            "dtype_asked": self.dtype.requested,
            "dtype_why": self.dtype.reason,
            "threads": self.threads.number,
            "threads_why": self.threads.reason,
            "cpu_capability": self.cpu_capability,
            "gpu": self.gpu,
            "ranks": self.ranks,
        }


def settle(config: Config, *, device: torch.device, ranks: int = 1) -> Hardware:
    """Choose the type for a device, and set the number of torch's threads.

    torchrun sets OMP_NUM_THREADS for its processes, so ranks on one machine do not compete for cores.
    """
    gpu = machine.gpu(torch) if device.type == "cuda" else None
    dtype = machine.choose_dtype(config.dtype, gpu=gpu)
    return Hardware(
        config=replace(config, dtype=dtype.dtype),
        dtype=dtype,
        threads=machine.use_threads(torch, config.threads),
        machine=machine.describe(torch),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        gpu=gpu.name if gpu is not None else "",
        ranks=ranks,
    )


def lines_for(hardware: Hardware, *, device: torch.device) -> list[str]:
    """Return log lines: type and threads, and a warning where the device is slow in that type."""
    warning = machine.bfloat16_warning(hardware.dtype, torch, device=device.type)
    return [str(hardware), warning] if warning else [str(hardware)]

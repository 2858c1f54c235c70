"""The arithmetic and the threads of a run, settled once for this machine."""

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
    """The run's settings, `dtype` settled."""
    dtype: machine.DtypeChoice
    threads: machine.ThreadChoice
    machine: str
    """The machine, in one line."""

    def __str__(self) -> str:
        return f"{self.dtype}, {self.threads}"

    def as_dict(self) -> dict[str, Any]:
        """Return what the record of a run says of it, as JSON can hold it."""
        return {
            "machine": self.machine,
            "dtype": self.dtype.dtype,
            "dtype_asked": self.dtype.asked,
            "dtype_why": self.dtype.why,
            "threads": self.threads.number,
            "threads_why": self.threads.why,
        }


def settle(config: Config, *, device: torch.device) -> Hardware:
    """Settle `dtype` for `device`, and make torch compute with the threads that the settings mean.

    A process that torchrun started has OMP_NUM_THREADS from it, so ranks on one machine do not crowd each other.
    """
    gpu = machine.gpu(torch) if device.type == "cuda" else None
    dtype = machine.choose_dtype(config.dtype, gpu=gpu)
    return Hardware(
        config=replace(config, dtype=dtype.dtype),
        dtype=dtype,
        threads=machine.use_threads(torch, config.threads),
        machine=machine.describe(torch),
    )


def lines_for(hardware: Hardware, *, device: torch.device) -> list[str]:
    """Return what to say before training: dtype and threads, and a warning where `device` does not compute in it."""
    slow = machine.bfloat16_warning(hardware.dtype, torch, device=device.type)
    return [str(hardware), slow] if slow else [str(hardware)]

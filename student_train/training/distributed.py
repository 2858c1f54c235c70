"""How is training split over processes? FSDP2 over the ranks that torchrun started; one process is the special case.

Contract: every rank does the same collectives in the same order. Ranks share out the rows of each step (`order.py`);
losses are summed and divided by the number of positions of the whole step, so FSDP's own averaging is off. Checkpoints
are written in parts (`checkpoint.py`); the folder at the end is gathered, parameter by parameter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from student_train.errors import TrainError
from student_train.model.parts import layers_of

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Who takes part, and which of them is this?"""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def gather(self, mine: Any) -> list[Any]:
        """Return what each rank gave, in the order of ranks. Anything that pickles; a collective."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str) -> Iterator[World]:
    """Join the ranks that torchrun started, or be alone. `device` is as in `Config.device`."""
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu and not torch.cuda.is_available():
        raise TrainError(f"device is {device}; found no GPU, expected one; use --device cpu")
    if size == 1:
        yield World(device=torch.device(("cuda" if on_gpu else "cpu") if device == "auto" else device))
        return
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield World(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            device=torch.device("cuda", local) if on_gpu else torch.device("cpu"),
        )
    finally:
        dist.destroy_process_group()


def split(distiller: nn.Module, world: World) -> nn.Module:
    """Split the module's parameters over the ranks, in place: each layer by itself, the rest with the whole."""
    if world.size == 1:
        return distiller
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers_of(distiller.model):
        fully_shard(layer, mesh=mesh)
    fully_shard(distiller, mesh=mesh)
    for module in distiller.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # else a factor is multiplied in, which gloo cannot
    return distiller


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole tensor, of which a rank may hold a part, on the CPU. A collective for split tensors."""
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.detach().to("cpu").contiguous()

"""Training over several processes: FSDP2 over the ranks that torchrun started. One process is the special case.

Every rank runs the same collectives in the same order. Ranks share the rows of each step (`data/sampler.py`). Losses
are summed and divided by the number of positions of the whole step, so FSDP's own averaging is off. Each rank writes
its part of a checkpoint (`outputs/checkpoint.py`). The exported folder is gathered parameter by parameter.
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
    """The ranks of a run, as one of them sees them."""

    rank: int = 0
    """This process, from 0."""
    size: int = 1
    """Number of processes."""
    device: torch.device = CPU
    """Device of this process."""

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and log lines."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each rank, in the order of ranks. Takes anything that pickles. A collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Return when all ranks have arrived. A collective."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def init_distributed(device: str) -> Iterator[World]:
    """Join the ranks that torchrun started; without torchrun, be the only one.

    Args:
        device: As in `Config.device`.

    Raises:
        TrainError: A GPU is asked for and there is none.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu and not torch.cuda.is_available():
        raise TrainError(f"device is {device}; found no GPU, expected one; use --device cpu")
    if size == 1:
        yield World(device=torch.device(("cuda" if on_gpu else "cpu") if device == "auto" else device))
        return
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield World(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            device=torch.device("cuda", local_rank) if on_gpu else CPU,
        )
    finally:
        dist.destroy_process_group()


def joined_world(device: torch.device) -> World:
    """Return the ranks that have joined torch.distributed's default group; without torchrun, this process alone.

    Raises:
        TrainError: torchrun started several processes, and they have not joined.
    """
    if dist.is_available() and dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
    if (size := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise TrainError(
            f"WORLD_SIZE is {size}: found no process group, expected one, as each rank would read all rows; call "
            "torch.distributed.init_process_group first"
        )
    return World(device=device)


def apply_fsdp(distiller: nn.Module, world: World) -> nn.Module:
    """Shard a module's parameters over the ranks, in place: each layer by itself, the rest as one group."""
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
            module.set_force_sum_reduction_for_comms(True)  # gloo has no reduction with a factor
    return distiller


def reshard(distiller: nn.Module, world: World) -> None:
    """Let a sharded module hold its shards again: a forward pass without a backward pass leaves whole parameters.

    The optimiser and checkpoints know the shards alone.
    """
    if world.size == 1:
        return
    from torch.distributed.fsdp import FSDPModule

    for module in distiller.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor, of which a rank may hold a shard, on the CPU. A collective for sharded tensors."""
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.detach().to("cpu").contiguous()

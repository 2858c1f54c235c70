"""Digests of weights: of the parameters that train, at a checkpoint, and of the tensors of an exported folder.

Both cover name, type, shape and bytes of every tensor in the order of names. They do not depend on how a file lays its
tensors out, so they compare runs over versions of safetensors and over numbers of ranks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from shards.model_files.weights import read_header, weight_files
from student_train.training.distributed import World, full_tensor

_BLOCK_BYTES = 16_000_000


def parameters_sha256(model: Any, *, world: World | None = None) -> str:
    """Return the digest of the parameters that train, hex; "" on ranks other than the main one. A collective.

    Args:
        model: The model, whose parameters may be sharded over the ranks.
        world: All ranks; None for one process.
    """
    import torch

    world = world or World()
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            tensor = full_tensor(parameter)  # all ranks gather; one hashes
            if world.is_main:
                digest.update(_line(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
                # A copy: memory that numpy has seen cannot be resized, and FSDP resizes that of gathered parameters.
                digest.update(tensor.reshape(-1).view(torch.uint8).clone().numpy())
    return digest.hexdigest() if world.is_main else ""


def exported_sha256(folder: Path) -> str:
    """Return the digest of the tensors in the safetensors files of a folder, hex.

    Raises:
        ShardError: A file is cut, damaged or cannot be read.
    """
    tensors = [
        (header.name, header, file)
        for file in weight_files(folder)
        if file.suffix == ".safetensors"
        for header in read_header(file)
    ]
    digest = hashlib.sha256()
    for name, header, path in sorted(tensors, key=lambda item: item[0]):
        digest.update(_line(name, header.dtype, header.shape))
        with path.open("rb") as file:
            file.seek(header.offset)
            left = header.length
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def _line(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    return f"{name} {dtype} {list(shape)}\n".encode()

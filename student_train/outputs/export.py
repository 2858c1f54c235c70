"""Export the trained model as a transformers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from shards.storage.atomic import sync_path
from student_train.model.sources import tokenizer_files
from student_train.outputs.files import TEMPORARY, full_disk_errors, require_room


def export(out: Path, *, model: Any, tokenizer_dir: Path, dtype: str) -> None:
    """Write weights, configuration and tokenizer, each file atomically.

    Args:
        out: Folder to write to.
        model: transformers causal language model with whole parameters; converted in place.
        tokenizer_dir: Folder with the tokenizer's files.
        dtype: Type of the weights.

    Raises:
        CheckpointError: The disk is full.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = model.to(dtype=getattr(torch, dtype))
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    require_room(out, needed)
    temporary = out / (TEMPORARY + "export")
    with full_disk_errors(out, needed, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for entry in tokenizer_files(tokenizer_dir):
            shutil.copyfile(entry, temporary / entry.name)
        model.save_pretrained(temporary)
        mode = (temporary / "config.json").stat().st_mode
        for entry in sorted(temporary.iterdir()):
            entry.chmod(mode)  # safetensors makes its files readable by their owner only
            sync_path(entry)
            entry.rename(out / entry.name)
        temporary.rmdir()
        sync_path(out)

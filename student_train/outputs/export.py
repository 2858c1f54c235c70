"""Export the trained model as a transformers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from student_train.model.sources import tokenizer_files
from student_train.outputs.checkpoint import _TEMPORARY, _FullDisk, _sync, require_room


def export(out: Path, *, model: Any, tokenizer_dir: Path, dtype: str) -> None:
    """Make `out` an ordinary transformers folder: weights, configuration, tokenizer. File by file, each whole.

    Raises: CheckpointError where the disk is full.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = model.to(dtype=getattr(torch, dtype))
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    require_room(out, needed)
    temporary = out / (_TEMPORARY + "export")
    with _FullDisk(out, needed, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for entry in tokenizer_files(tokenizer_dir):
            shutil.copyfile(entry, temporary / entry.name)
        model.save_pretrained(temporary)
        mode = (temporary / "config.json").stat().st_mode
        for entry in sorted(temporary.iterdir()):
            entry.chmod(mode)  # safetensors gives its files to their owner alone
            _sync(entry)
            entry.rename(out / entry.name)
        temporary.rmdir()
        _sync(out)

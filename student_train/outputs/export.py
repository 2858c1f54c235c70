"""Export the trained model as a transformers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from shards.storage.atomic import sync_path
from student_train.data.chat_template import StudentTemplate
from student_train.model.sources import tokenizer_files
from student_train.outputs.files import TEMPORARY, full_disk_errors, require_room, settle_files


def export(out: Path, *, model: Any, tokenizer_dir: Path, dtype: str, template: StudentTemplate | None = None) -> None:
    """Write weights, configuration and tokenizer, each file atomically.

    A student of responses gets the chat template that it was trained with, and the token that ends a turn as one that
    ends generation. So other programs ask it as it was trained, and it stops.

    Args:
        out: Folder to write to.
        model: transformers causal language model with whole parameters; converted in place.
        tokenizer_dir: Folder with the tokenizer's files.
        dtype: Type of the weights.
        template: Chat template of the responses that the model was trained on; None for documents.

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
        if template is not None:
            (temporary / "chat_template.jinja").write_text(template.exported, encoding="utf-8")
            _end_turns(model, template.end_of_turn)
        model.save_pretrained(temporary)
        for entry in settle_files(temporary):
            entry.rename(out / entry.name)
        temporary.rmdir()
        sync_path(out)


def _end_turns(model: Any, end: int) -> None:
    """Let generation end with the token `end`, too."""
    for settings in (model.generation_config, model.config):
        if settings is not None:
            ends = settings.eos_token_id
            known = ends if isinstance(ends, list) else [ends]
            settings.eos_token_id = [end, *(i for i in known if i is not None and i != end)]

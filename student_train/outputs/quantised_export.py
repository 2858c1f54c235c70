"""Write the quantised copy of an exported student."""

from __future__ import annotations

import shutil
from pathlib import Path

from shards.errors import first_line
from shards.storage.atomic import sync_path
from student_train.errors import StudentError
from student_train.model.quantization import torchao_settings
from student_train.model.sources import tokenizer_files
from student_train.outputs.files import TEMPORARY, full_disk_errors, require_room, settle_files


def export_quantised(folder: Path, kind: str) -> Path:
    """Write the quantised copy of a transformers folder as the folder `kind` in it; whole or not at all.

    Args:
        folder: Float weights with tokenizer.
        kind: One of `choices.QUANTIZATIONS`.

    Returns:
        The new folder. transformers loads it where torchao is installed.

    Raises:
        StudentError: transformers does not make the copy.
        CheckpointError: The disk is full.
        TrainError: torchao is missing.
    """
    from transformers import AutoModelForCausalLM, TorchAoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    settings = TorchAoConfig(torchao_settings(kind))
    out, temporary = folder / kind, folder / (TEMPORARY + kind)
    for path in (out, temporary):
        shutil.rmtree(path, ignore_errors=True)
    needed = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    require_room(folder, needed)
    with full_disk_errors(folder, needed, temporary):
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings)
            model.save_pretrained(temporary)
        except OSError:
            raise
        except Exception as error:  # transformers and torchao raise many types
            raise StudentError(
                f"quantize {kind}: {folder} does not quantise ({first_line(error)}); the float student is whole; use "
                "another version of torchao, or leave --quantize out"
            ) from error
        for entry in (*tokenizer_files(folder), *folder.glob("chat_template.jinja")):
            shutil.copyfile(entry, temporary / entry.name)
        settle_files(temporary)
        temporary.rename(out)
        sync_path(folder)
    return out

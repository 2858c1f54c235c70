"""Load a model that is only evaluated: quantised weights and GGUF files are accepted, and no layer is cut.

transformers runs quantised folders (bitsandbytes, GPTQ, AWQ, torchao) where the package of the method is installed.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.format.manifest import Teacher
from student_train.errors import StudentError
from student_train.model.head import require_projection
from student_train.model.loading import Student, context_of, match_tokenizer
from student_train.model.model_folder import load_model, require_ids
from student_train.model.probe import require_runs
from student_train.model.sources import find_student, has_weights


@contextmanager
def evaluated_model(
    name: str, *, teacher: Teacher, shards_tokenizer: Path, log: Callable[[str], None]
) -> Iterator[Student]:
    """Load a model with its tokenizer; files that a GGUF model needs exist until the end of the context.

    Args:
        name: Short name, hub id, folder, or a GGUF file.
        teacher: The teacher that made the shards.
        shards_tokenizer: Folder of the shards' tokenizer.
        log: Called with one line about tensors that are left out.

    Raises:
        StudentError: The model is unavailable, does not run, or does not fit the shards.
    """
    with tempfile.TemporaryDirectory(prefix="teacherless-") as temporary:
        if name.endswith(".gguf"):
            folder, source = Path(temporary), Path(name).name
            model = _load_gguf(Path(name), folder)
            tokenizer = match_tokenizer(name, folder, shards_tokenizer)
        else:
            folder, source = find_student(name, teacher)
            if not has_weights(folder):
                raise StudentError(f"model {name}: found no weights in {folder}, expected a trained model")
            tokenizer = match_tokenizer(name, folder, shards_tokenizer)
            model = load_model(name, folder, seed=0, log=log, may_be_quantised=True)
        require_projection(model)
        require_runs(model)
        vocab_size = model.get_output_embeddings().weight.shape[0]
        if name != "teacher":
            require_ids(name, tokenizer.rules, vocab_size=vocab_size)
        yield Student(
            model=model,
            source=source,
            layers=None,
            tokenizer_dir=tokenizer.folder,
            vocab_size=vocab_size,
            other_tokenizer=tokenizer.difference,
            max_row_tokens=context_of(model),
        )


def _load_gguf(file: Path, tokenizer_dir: Path) -> Any:
    """Return the model of a GGUF file, dequantised to float32, and write its tokenizer to a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    if not file.is_file():
        raise StudentError(f"model {file}: found no such file, expected a GGUF file")
    logging.disable_progress_bar()
    try:
        # transformers prints a progress bar of the conversion that no setting switches off.
        with contextlib.redirect_stderr(io.StringIO()):
            AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(tokenizer_dir)
            return AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
    except Exception as error:  # transformers and gguf raise many types on files that they do not read
        raise StudentError(
            f"model {file}: does not load ({first_line(error)}); expected a GGUF file of a causal language model that "
            "transformers reads, and the package gguf"
        ) from None

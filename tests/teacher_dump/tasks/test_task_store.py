"""Tests of the task list on disk: it is read back unchanged, and damage or another fingerprint is detected."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import shards
from shards.format.chunk import RowInfo
from shards.format.manifest import Writer
from shards.verify import verify
from teacher_dump.cli import main
from teacher_dump.tasks import task_store
from teacher_dump.tasks.task import group_into_tasks
from teacher_dump.tasks.task_store import CorpusFacts
from teacher_dump.tasks.windowing import Window

WRITER = Writer(
    name="student",
    revision="",
    weights_sha256="1" * 64,
    tokenizer="t",
    temperature=0.8,
    top_p=1.0,
    max_new_tokens=9,
    seed=0,
)


def windows(number: int) -> list[Window]:
    """Return windows of random ids."""
    chances = np.random.default_rng(0)
    return [
        Window(
            info=RowInfo(
                document=f"{n:064x}",
                window=n % 3,
                byte_start=n,
                byte_end=n + 9,
                source="caf\u00e9/x",
                path=f"{n}.py",
                licence="",
                context=n % 2 + 1,
                messages="[caf\u00e9]" if n % 2 else "",
            ),
            tokens=chances.integers(0, 2**31 - 1, int(chances.integers(3, 50))).astype(np.int32),
        )
        for n in range(number)
    ]


def test_tasks_are_read_back_unchanged(tmp_path: Path) -> None:
    found = list(group_into_tasks(windows(40), task_tokens=100, fingerprint="f"))
    corpus = CorpusFacts(counts=Counter({"documents": 40}), writer=WRITER)
    assert task_store.save(tmp_path, "f", iter(found), corpus) == len(found) > 5
    read = task_store.load(tmp_path, "f")
    assert read is not None
    assert (read.counts, read.writer) == ({"documents": 40}, WRITER)
    assert (tmp_path / read.dropped.name).stat().st_size == read.dropped.bytes
    for a, b in zip(found, read.tasks, strict=True):
        assert (a.name, a.num_tokens) == (b.name, b.num_tokens)
        for x, y in zip(a.windows, b.windows, strict=True):
            assert x.info == y.info
            assert np.array_equal(x.tokens, y.tokens)
            assert y.tokens.dtype == np.int32
    assert task_store.load(tmp_path, "of other settings") is None
    task_store.discard(tmp_path)
    assert task_store.load(tmp_path, "f") is None


def test_an_empty_corpus_writes_no_list(tmp_path: Path) -> None:
    assert task_store.save(tmp_path, "f", [], CorpusFacts()) == 0
    assert task_store.load(tmp_path, "f") is None
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    task_store.save(tmp_path, "f", group_into_tasks(windows(10), task_tokens=100, fingerprint="f"), CorpusFacts())
    file = tmp_path / "tasks" / "windows"
    raw = bytearray(file.read_bytes())
    raw[20] ^= 1
    file.write_bytes(raw)
    read = task_store.load(tmp_path, "f")
    assert read is not None
    with pytest.raises(shards.CorruptShardError, match="delete the folder"):
        list(read.tasks[0].windows)


def test_a_prepared_folder_no_longer_needs_its_corpus(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "corpus"
    shutil.copytree(corpus_folder, moved)
    options = ["--model", str(tiny_teacher), "--data", str(moved), "--out", str(tmp_path / "o"), "--engine"]
    options += ["transformers", "--window-tokens", "48", "--task-tokens", "150", "--max-tokens", "300"]
    prepared = CliRunner().invoke(main, [*options, "--prepare"])
    assert prepared.exit_code == 0, prepared.output
    assert "tasks, " in prepared.output
    assert not list((tmp_path / "o").glob("*.arrow"))
    before = {hashlib.sha256(file.read_bytes()).hexdigest() for file in moved.rglob("*.py")}
    for file in moved.rglob("*.py"):
        file.write_text("another = 1\n")
    assert CliRunner().invoke(main, options).exit_code == 0
    cache = shards.open(tmp_path / "o")
    assert verify(cache) == []
    documents = {row.document for chunk in cache for row in chunk.rows}
    assert documents
    assert documents <= before
    assert not (tmp_path / "o" / "tasks").exists()


def test_a_source_that_cannot_be_read_is_not_called_a_full_disk(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teacher_dump.corpus.readers import sources

    def fails(*_: Any) -> Any:
        raise OSError(5, "Input/output error", "/corpus/a.py")
        yield

    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(sources, "read", fails)
    arguments = ["--model", str(tiny_teacher), "--data", str(tmp_path), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(main, [*arguments, "--engine", "transformers", "--prepare", "--decontaminate", "none"])
    assert result.exit_code == 1
    assert result.output == (
        "error: /corpus/a.py: cannot read the corpus (Input/output error); check the file and your permissions\n"
    )

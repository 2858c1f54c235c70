"""Tests of a dump: it is complete and repeatable, and its errors are one line."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from shards.format.manifest import ShardEntry
from shards.live import DRAFT_NAME, open_live
from shards.verify import verify
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.engines.records import draw_offsets
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.model import teachers
from teacher_dump.model.teachers import resolve
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.dump import dump
from teacher_dump.tasks.windowing import Window
from tests.teacher_dump.conftest import PADDED_VOCAB
from tests.teacher_dump.helpers import dump_config, run_command


def test_a_dump_verifies_and_records_its_teacher(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    outcome = dump(dump_config(tiny_teacher, corpus_folder, tmp_path))
    cache = outcome.cache
    assert verify(cache) == []
    assert outcome.new_tasks == len(cache.manifest.shards) > 3
    teacher = cache.manifest.teacher
    assert teacher.vocab_size < PADDED_VOCAB
    assert teacher.weights_sha256 == teachers.weights_sha256(tiny_teacher)
    assert cache.manifest.tokenizer.prefix_tokens == (0,)
    assert cache.manifest.report["head_mass"] == pytest.approx(
        np.mean(1 - np.concatenate([c.tail_mass for c in cache])), abs=1e-5
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cache.tokenizer_dir)
    texts = {d: (corpus_folder / p).read_bytes() for c in cache for d, p in ((r.document, r.path) for r in c.rows)}
    for chunk in cache:
        for r, info in enumerate(chunk.rows):
            text = tokenizer.decode(chunk.row(r).tokens[1:], clean_up_tokenization_spaces=False)
            assert text.encode() == texts[info.document][info.byte_start : info.byte_end]


def test_a_dump_can_be_followed_from_its_first_task(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    seen = []

    class Follower(Callbacks):
        def on_load_begin(self, engine: str) -> None:
            self.look()

        def on_task_end(self, entry: ShardEntry) -> None:
            self.look()

        def look(self) -> None:
            found = open_live(tmp_path)
            assert found is not None
            assert not found.complete
            assert found.cache.tokenizer_dir.is_dir()
            seen.append([shard.name for shard in found.cache.manifest.shards])

    cache = dump(dump_config(tiny_teacher, corpus_folder, tmp_path), Follower()).cache
    names = [shard.name for shard in cache.manifest.shards]
    assert seen == [names[:n] for n in range(len(names) + 1)]
    found = open_live(tmp_path)
    assert found is not None
    assert found.complete
    assert not (tmp_path / DRAFT_NAME).exists()


def test_records_agree_with_the_model_in_float64(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    cache = dump(dump_config(tiny_teacher, corpus_folder, tmp_path)).cache
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float64)
    chunk = cache[0].row(1)
    with torch.no_grad():
        logits = model(torch.from_numpy(chunk.tokens[None].astype(np.int64))).logits[
            0, :-1, : cache.manifest.layout.vocab_size
        ]
    log_p = torch.log_softmax(logits, -1).numpy()
    positions = np.arange(len(log_p))
    # Within the steps of the format: 1/512 nat outside the head, half a head code inside it.
    assert chunk.label_logp == pytest.approx(log_p[positions, chunk.tokens[1:]], abs=0.06)
    owner = np.repeat(positions, np.diff(chunk.head_starts))
    assert chunk.head_probs == pytest.approx(np.exp(log_p[owner, chunk.head_ids]), abs=0.012)
    assert chunk.entropy == pytest.approx(-(np.exp(log_p) * log_p).sum(1), abs=0.05)
    for z, t in enumerate(cache.manifest.temperatures):
        assert chunk.log_z[:, z] == pytest.approx(np.log(np.exp(log_p / t).sum(1)), abs=0.003)


def test_padding_of_the_vocabulary_gets_no_probability(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    cache = dump(dump_config(tiny_teacher, corpus_folder, tmp_path)).cache
    assert cache.manifest.layout.vocab_size == cache.manifest.tokenizer.vocab_size < PADDED_VOCAB
    assert max(int(c.draw_ids.max()) for c in cache) < cache.manifest.layout.vocab_size


def test_batches_do_not_change_the_records_of_a_row(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    settings = dump_config(tiny_teacher, corpus_folder, tmp_path)
    model = resolve(settings.model)
    _, spec = record_layout(settings, model)
    engine = TransformersEngine(engine_config(settings, model, spec))
    cache = dump(settings).cache
    rows = [c.row(r) for c in cache for r in range(len(c.rows))][:5]
    windows = [Window(info=r.rows[0], tokens=np.array(r.tokens)) for r in rows]
    alone = [next(engine.capture([w])) for w in windows]
    for one, together in zip(alone, engine._forward(windows), strict=True):
        assert np.array_equal(one[:, : spec.head_slots], together[:, : spec.head_slots])


def test_a_second_run_changes_nothing_and_reports_it(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(tiny_teacher), "--data", str(corpus_folder), "--out", str(tmp_path / "o")]
    arguments += ["--engine", "transformers", "--max-tokens", "300", "--window-tokens", "48", "--task-tokens", "150"]
    first = run_command(*arguments)
    assert first.exit_code == 0, first.output
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*")}
    second = run_command(*arguments)
    assert second.exit_code == 0
    assert "already complete, reused all" in second.output
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*")}


def test_a_deleted_shard_is_made_again_with_the_same_rows(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    whole = dump(dump_config(tiny_teacher, corpus_folder, tmp_path)).cache
    (tmp_path / whole.manifest.shards[1].name).unlink()
    again = dump(dump_config(tiny_teacher, corpus_folder, tmp_path))
    assert (again.new_tasks, again.reused_tasks) == (1, len(whole.manifest.shards) - 1)
    assert again.cache.manifest_sha256 == whole.manifest_sha256


def test_other_settings_for_the_same_folder_are_refused_by_name(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    dump(dump_config(tiny_teacher, corpus_folder, tmp_path))
    with pytest.raises(shards.ShardError, match="seed 0 there, 1 requested"):
        dump(dump_config(tiny_teacher, corpus_folder, tmp_path, seed=1))


def test_the_writer_touches_only_its_own_names(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text("mine")
    dump(dump_config(tiny_teacher, corpus_folder, tmp_path))
    names = {p.name for p in tmp_path.iterdir()}
    assert (tmp_path / "schema.py").read_text() == "mine"
    others = {n for n in names if not n.endswith((".arrow", ".arrow.json"))}
    assert others == {"schema.py", "manifest.json", "plan.json", "dropped.jsonl", "tokenizer"}


@pytest.mark.slow
def test_a_killed_dump_resumes_and_ends_with_the_same_rows(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    whole = dump(dump_config(tiny_teacher, corpus_folder, tmp_path / "whole")).cache
    command = [
        sys.executable, "-m", "teacher_dump", "--model", str(tiny_teacher), "--data", str(corpus_folder),
        "--engine", "transformers", "--window-tokens", "48", "--task-tokens", "150", "--chunk-tokens", "100",
        "--max-tokens", "900", "--dtype", "float32", "--decontaminate", "none", "--out", str(tmp_path / "killed"),
    ]  # fmt: skip
    chances = random.Random(1)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shards_before = len(list((tmp_path / "killed").glob("*.arrow")))
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((tmp_path / "killed").glob("*.arrow"))) > shards_before:
                time.sleep(chances.uniform(0, 0.05))
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    cache = shards.open(tmp_path / "killed")
    assert verify(cache) == []
    assert cache.manifest_sha256 == whole.manifest_sha256
    assert not list((tmp_path / "killed").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no-such-name"], "neither a short name"),
        (["--model", "smollm2-135m", "--data", "nowhere.jsonl"], "found no such file"),
        (["--model", "smollm2-135m", "--window-tokens", "2"], "window_tokens: found 2"),
        (["--model", "smollm2-135m", "--max-tokens", "0"], "max_tokens: found 0"),
        (["--model", "smollm2-135m", "--threshold", "2"], "threshold: found 2"),
        (["--model", "smollm2-135m", "--tensor-parallel-size", "2"], "--tensor-parallel-size 2: found the engine"),
        (["--model", "smollm2-135m", "--pipeline-parallel-size", "3"], "--pipeline-parallel-size 3: found the engine"),
    ],
)
@pytest.mark.teacher
def test_bad_input_is_one_line_and_exit_1(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run_command(*arguments, "--out", str(tmp_path / "o"), "--engine", "transformers")
    assert result.exit_code == 1
    assert message in result.output
    # A slow machine prints that it still reads the teacher.
    lines = [line for line in result.output.splitlines() if not line.startswith("reading the teacher's files")]
    assert len(lines) == 1


def test_an_empty_corpus_is_named(tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(shards.ShardError, match="no usable document"):
        dump(dump_config(tiny_teacher, tmp_path / "empty", tmp_path / "o"))


def test_a_folder_without_a_model_is_named(tmp_path: Path, corpus_folder: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(shards.ShardError, match="expected a transformers model folder"):
        dump(dump_config(tmp_path / "m", corpus_folder, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_codellama_on_a_machine_without_its_gpus_is_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run_command("--model", "codellama-70b", "--out", str(tmp_path / "shards/"))
    assert result.exit_code == 1
    assert "needs 138 GB of GPU memory" in result.output
    assert result.output.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_the_reduction_of_the_engine_is_the_reduction_of_the_model(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    settings = dump_config(tiny_teacher, corpus_folder, tmp_path)
    model = resolve(settings.model)
    _, spec = record_layout(settings, model)
    known = engine_config(settings, model, spec)
    cache = dump(settings).cache
    row = cache[0].row(0)
    window = Window(info=row.rows[0], tokens=np.array(row.tokens))
    packed = next(TransformersEngine(known).capture([window]))
    with torch.inference_mode():
        net = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
        logits = net(torch.from_numpy(window.tokens[None].astype(np.int64))).logits[0, :-1, : known.vocab_size]
    u = draw_offsets(window.info.document, window.info.window, 0, len(logits))
    expected = sparsify(
        logits,
        torch.from_numpy(window.tokens[1:].astype(np.int64)),
        torch.from_numpy(u),
        spec=spec,
        whitespace_V=torch.from_numpy(known.whitespace_mask()),
    )
    assert np.array_equal(packed[:, : spec.head_slots], expected.head_ids.numpy())


def test_a_full_disk_is_one_line_and_keeps_finished_tasks(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        with pytest.raises(shards.StoreError, match=r"No space left.*free some space"):
            dump(dump_config(tiny_teacher, corpus_folder, mount / "o", max_tokens=None, task_tokens=500))
        assert not (mount / "o" / "manifest.json").exists()
        assert not list((mount / "o").glob(".*.part"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
        shutil.rmtree(mount, ignore_errors=True)


def test_a_run_killed_before_the_manifest_is_finished_without_the_teacher(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dump(dump_config(tiny_teacher, corpus_folder, tmp_path)).cache
    (tmp_path / "manifest.json").unlink()
    monkeypatch.setattr("teacher_dump.run.dump.start_engine", None)  # loading an engine would fail
    again = dump(dump_config(tiny_teacher, corpus_folder, tmp_path))
    assert again.new_tasks == 0
    assert again.cache.manifest == whole.manifest

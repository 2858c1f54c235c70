"""Tests of whole runs: the same bits however often they are stopped, and refusals in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from shards.errors import CorruptShardError, IncompleteCacheError, StoreError
from shards.model_files.weights import config_sha256
from student_train.cli import main
from student_train.data.hashing import HeldOutRule, is_held_out
from student_train.errors import CheckpointError, Interrupted, TrainError
from student_train.training import learner, loop, trainer
from tests.student_train.toy import arguments, digest, environment, losses, run, toy_config


@pytest.fixture(scope="module")
def finished(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "ckpt"
    patch = pytest.MonkeyPatch()
    patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
    run(toy_config(world, out, control=True))
    patch.undo()
    return out


@pytest.mark.slow
def test_the_output_is_an_ordinary_transformers_folder(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished)
    assert model.config.num_hidden_layers == 2
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert tokenizer.decode(tokenizer("return x")["input_ids"]) == "return x"
    assert (finished / "generation_config.json").is_file()
    assert not list(finished.glob(".incomplete*"))
    assert len({path.stat().st_mode for path in finished.iterdir() if path.is_file()}) == 1


def test_the_record_says_what_was_done(world: Any, finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["format"] == 1
    assert record["objective"] == "kd"
    assert record["config"]["seed"] == 0
    assert record["shards"]["rows"] == 48
    assert record["shards"]["teacher"]["licence"] == "Apache-2.0"
    choice = record["student"].pop("layer_choice")
    assert (choice["method"], len(choice["kept"]), len(choice["influence"])) == ("kl", 2, 4)
    config_digest = config_sha256(world.teacher_dir)
    expected = {"source": "tiny-teacher", "from_folder": False, "layers": 2, "parameters": 0}
    expected |= {"weights_sha256": "ab" * 32, "config_sha256": config_digest}
    assert record["student"] | {"parameters": 0} == expected
    assert record["train"]["steps"] == 20
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert record["train"]["tokens"] == lines[-1]["tokens"]
    assert all({"step", "loss", "kd_loss", "ce_loss", "lr", "tokens", "tokens_per_s"} == set(line) for line in lines)
    held = record["held_out"]
    rows = [json.loads(line) for line in (finished / "held_out.jsonl").read_text().splitlines()]
    expected = [row for row in world.rows if is_held_out(row.rows[0].document, fraction=0.2)]
    assert held["rows"] == len(rows) == len(expected) > 0
    assert held["tokens"] == sum(len(row.tokens) - 1 for row in expected)
    for key in ("kl", "bits_per_byte", "top1_agreement", "calibration_error"):
        assert held["after"][key]["low"] <= held["after"][key]["mean"] <= held["after"][key]["high"]
    assert held["after"]["kl"]["mean"] == pytest.approx(sum(r["kl_sum"] for r in rows) / held["tokens"])


def test_the_control_sees_the_same_rows_and_starts_from_the_same_weights(finished: Path) -> None:
    main, control = (json.loads((p / "run.json").read_text()) for p in (finished, finished / "control"))
    assert control["objective"] == "sft"
    assert control["train"]["tokens"] == main["train"]["tokens"]
    assert control["held_out"]["before"] == main["held_out"]["before"]
    assert control["held_out"]["after"] != main["held_out"]["after"]
    first = [json.loads((p / "metrics.jsonl").read_text().splitlines()[0]) for p in (finished, finished / "control")]
    assert first[0]["ce_loss"] == pytest.approx(first[1]["ce_loss"], rel=1e-5)
    assert "kd_loss" not in first[1]


def test_training_lowers_the_loss_that_it_trains(world: Any, at_home: Any, tmp_path: Path) -> None:
    run(toy_config(world, tmp_path / "o", max_steps=40, save_every=0, ce_weight=0.0, learning_rate=1e-2))
    told = losses(tmp_path / "o")
    assert sum(loss for _, loss in told[-10:]) < 0.8 * sum(loss for _, loss in told[:10])


@pytest.mark.slow
def test_two_runs_of_one_seed_are_identical_and_another_seed_is_not(
    world: Any, at_home: Any, finished: Path, tmp_path: Path
) -> None:
    run(toy_config(world, tmp_path / "a"))
    assert digest(tmp_path / "a") == digest(finished)
    assert losses(tmp_path / "a") == losses(finished)
    run(toy_config(world, tmp_path / "b", seed=1))
    assert digest(tmp_path / "b") != digest(finished)


@pytest.mark.slow
def test_a_run_stopped_twice_ends_in_the_same_bits(
    world: Any, at_home: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"
    real = loop.take_step
    for stop_at in (7, 13):

        def dies(*args: Any, number: int, stop_at: int = stop_at, **named: Any) -> Any:
            if number == stop_at:
                raise KeyboardInterrupt
            return real(*args, number=number, **named)

        monkeypatch.setattr(loop, "take_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(toy_config(world, out))
    monkeypatch.setattr(loop, "take_step", real)
    said = run(toy_config(world, out))
    assert said[0].endswith("continuing at step 10 of 20")
    assert digest(out) == digest(finished)
    assert losses(out) == losses(finished)
    assert (out / "held_out.jsonl").read_bytes() == (finished / "held_out.jsonl").read_bytes()


@pytest.mark.slow
def test_twenty_steps_equal_ten_a_kill_and_the_rest_to_the_last_bit(world: Any, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    # A slow step gives the kill a moment to hit: after the checkpoint of step 10, before the end.
    slow = (
        "import sys, time; from student_train.training import loop; real = loop.take_step\n"
        "def wait(*a, **k):\n    time.sleep(0.1 if k['number'] > 10 else 0)\n    return real(*a, **k)\n"
        "loop.take_step = wait\nfrom student_train.cli import main; main()"
    )
    command = arguments(toy_config(world, out))
    process = subprocess.Popen([sys.executable, "-c", slow, *command], env=environment(world), cwd=tmp_path)
    try:
        give_up = time.monotonic() + 300  # a busy machine takes its time to import torch
        while not (out / "checkpoints" / "step-10").is_dir():
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    assert not (out / "run.json").exists()
    resumed = CliRunner().invoke(main, command, env=environment(world))
    assert resumed.exit_code == 0, resumed.output
    assert "continuing at step 1" in resumed.output
    assert digest(out) == digest(finished)
    again = CliRunner().invoke(main, command, env=environment(world))
    assert again.exit_code == 0
    assert again.output == f"{out}: finished earlier, nothing to do; name another --out for another run\n"


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(
    world: Any, at_home: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "signalled"
    real = loop.take_step

    def interrupted(*args: Any, number: int, **named: Any) -> Any:
        if number == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, number=number, **named)

    monkeypatch.setattr(loop, "take_step", interrupted)
    with pytest.raises(Interrupted, match="stopped at step 9 of 20; run the same command to resume"):
        run(toy_config(world, out))
    monkeypatch.setattr(loop, "take_step", real)
    assert run(toy_config(world, out))[0].endswith("continuing at step 9 of 20")
    assert digest(out) == digest(finished)


def test_another_configuration_than_the_checkpoints_is_refused_by_name(
    world: Any, at_home: Any, finished: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"found a run with learning-rate 0.003, expected 0.01; use its settings"):
        run(toy_config(world, finished, learning_rate=1e-2))
    assert "nothing to do" in run(toy_config(world, finished, save_every=3))[0]


def test_a_run_that_held_out_other_rows_is_refused(
    world: Any, at_home: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of an earlier release may have: its figures before training are of those rows."""
    shutil.copytree(finished / "checkpoints", tmp_path / "out" / "checkpoints")
    monkeypatch.setattr(learner, "held_out_rule", lambda config, caches: HeldOutRule(fraction=0.4))
    with pytest.raises(CheckpointError, match=r"found a run that held out \d+ rows, expected \d+ others"):
        run(toy_config(world, tmp_path / "out"))


def test_other_shards_than_the_checkpoints_are_refused_by_name(
    world: Any, at_home: Any, finished: Path, tools: Any, tmp_path: Path
) -> None:
    other = tools.write_cache(tmp_path / "other", world.rows[:40], world.teacher_dir, vocab=world.vocab)
    with pytest.raises(CheckpointError, match="found a run on the shards with manifest"):
        run(dataclasses.replace(toy_config(world, finished), shards=(str(other),)))


def test_a_folder_of_someone_else_is_left_alone(world: Any, at_home: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"found thesis.txt, expected an empty folder"):
        run(toy_config(world, tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_missing_shards_are_one_line_and_leave_nothing(world: Any, tmp_path: Path) -> None:
    with pytest.raises(IncompleteCacheError, match=r"found no manifest.json"):
        run(dataclasses.replace(toy_config(world, tmp_path / "out"), shards=(str(tmp_path / "nowhere"),)))
    assert os.listdir(tmp_path) == []


def test_a_missing_shard_stops_the_run_by_name(world: Any, at_home: Any, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(world.shards, copy)
    (copy / "shard-00001.arrow").unlink()
    with pytest.raises(IncompleteCacheError, match=r"found no shard-00001.arrow, expected a complete cache"):
        run(dataclasses.replace(toy_config(world, tmp_path / "out"), shards=(str(copy),)))
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_store_that_cannot_be_reached_is_named_after_retries(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.storage.store.FIRST_PAUSE_S", 0.001)
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9/cache/manifest.json: .*gave up after 5 attempts, check"):
        run(dataclasses.replace(toy_config(world, tmp_path / "out"), shards=("http://127.0.0.1:9/cache",)))
    assert not (tmp_path / "out").exists()


def test_a_flipped_byte_stops_the_run_by_name(world: Any, at_home: Any, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(world.shards, copy)
    shard = copy / "shard-00001.arrow"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(CorruptShardError, match=r"shard-00001.arrow chunk"):
        run(dataclasses.replace(toy_config(world, tmp_path / "out"), shards=(str(copy),)))
    assert not (tmp_path / "out" / "run.json").exists()


def test_no_held_out_document_is_said_before_training(world: Any, at_home: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="found no held-out document at a share of 1e-09"):
        run(toy_config(world, tmp_path / "out", held_out=1e-9))
    assert not (tmp_path / "out").exists()


def test_without_held_out_rows_the_record_says_so(world: Any, at_home: Any, tmp_path: Path) -> None:
    run(toy_config(world, tmp_path / "out", held_out=0.0, max_steps=2))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["held_out"] == {"rows": 0, "tokens": 0, "bytes": 0, "before": None, "after": None}


def test_a_loss_that_is_not_finite_names_its_rows_and_changes_nothing(
    world: Any, at_home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.build_run

    def broken(*args: Any, **named: Any) -> Any:
        made = real(*args, **named)
        with torch.no_grad():
            made.student.model.model.norm.weight[0] = float("nan")
        return made

    monkeypatch.setattr(trainer, "build_run", broken)
    with pytest.raises(TrainError, match=r"step 1: found a loss that is not finite in tests:\d+\.py window \d"):
        run(toy_config(world, tmp_path / "out"))


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on_after(
    world: Any, at_home: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from student_train.outputs import checkpoint

    real, saved = checkpoint.require_room, []

    def full(out: Path, needed: int) -> None:
        saved.append(out)
        if len(saved) == 2:
            raise CheckpointError(f"{out}: found 0 MiB free")
        real(out, needed)

    monkeypatch.setattr(checkpoint, "require_room", full)
    with pytest.raises(CheckpointError, match="found 0 MiB free"):
        run(toy_config(world, tmp_path / "out"))
    assert run(toy_config(world, tmp_path / "out"))[0].endswith("continuing at step 5 of 20")
    assert digest(tmp_path / "out") == digest(finished)


@pytest.mark.parametrize(
    "more",
    [
        {"divergence": "bucket-forward-kl", "temperature": 2.0},
        {"lora_rank": 4, "gradient_checkpointing": True},
        {"schedule": "wsd", "export_dtype": "bfloat16", "clip": 0.0},
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in (
                {"objective": "sft"},
                {"divergence": "bucket-reverse-kl"},
                {"dtype": "bfloat16"},
                {"schedule": "wsd", "gradient_checkpointing": True},
                {"specialist": (5, 40, 200)},
                {"divergence": "rs-kd", "rs_draws": 12},
                {"divergence": "top-k"},
            )
        ),
    ],
)
def test_each_way_of_training_runs(world: Any, at_home: Any, tmp_path: Path, more: dict[str, Any]) -> None:
    run(toy_config(world, tmp_path / "out", max_steps=3, save_every=0, **more))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["train"]["steps"] == 3


@pytest.mark.slow
def test_evaluating_while_training_changes_no_bit_and_is_logged(
    world: Any, at_home: Any, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(toy_config(world, out, eval_every=8))
    assert digest(out) == digest(finished)
    told = [json.loads(line) for line in (out / "held_out_curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told] == [8, 16]
    assert set(told[0]) == {"step", "kl", "bits_per_byte", "top1_agreement", "calibration_error"}


@pytest.mark.slow
def test_adapters_train_few_weights_and_the_output_is_an_ordinary_model(
    world: Any, at_home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint import FileSystemReader
    from transformers import AutoModelForCausalLM

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = {"lora_rank": 2, "max_steps": 8, "save_every": 4, "learning_rate": 1e-2}
    run(toy_config(world, whole, **settings))
    saved = FileSystemReader(whole / "checkpoints" / "step-8").read_metadata().state_dict_metadata
    assert saved
    assert all(".lora_" in name for name in saved)
    model = AutoModelForCausalLM.from_pretrained(whole)
    start = AutoModelForCausalLM.from_pretrained(world.teacher_dir)
    first = [m.model.layers[0].self_attn.q_proj.weight for m in (model, start)]
    assert not torch.equal(*first)
    assert torch.equal(model.model.embed_tokens.weight, start.model.embed_tokens.weight)

    real = loop.take_step

    def dies(*args: Any, number: int, **named: Any) -> Any:
        if number == 6:
            raise KeyboardInterrupt
        return real(*args, number=number, **named)

    monkeypatch.setattr(loop, "take_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(toy_config(world, stopped, **settings))
    monkeypatch.setattr(loop, "take_step", real)
    run(toy_config(world, stopped, **settings))
    assert digest(stopped) == digest(whole)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"lora_rank": 4, "learning_rate": 1e-2}])
def test_the_records_figures_are_those_of_the_exported_weights(
    world: Any, at_home: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    run(toy_config(world, first, max_steps=4, save_every=0, export_dtype="bfloat16", **more))
    run(toy_config(world, again, max_steps=1, save_every=0, student=str(first), student_layers=0))
    after, before = (json.loads((out / "run.json").read_text())["held_out"] for out in (first, again))
    assert after["after"] == before["before"]


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_bit(world: Any, at_home: Any, finished: Path, tmp_path: Path) -> None:
    run(toy_config(world, tmp_path / "out", gradient_checkpointing=True))
    assert digest(tmp_path / "out") == digest(finished)


@pytest.mark.slow
def test_compiled_layers_train_the_same_to_rounding_and_repeat_to_the_bit(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    for name in ("a", "b", "plain"):
        run(toy_config(world, tmp_path / name, max_steps=6, save_every=0, compile=name != "plain"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    for (_, compiled), (_, plain) in zip(losses(tmp_path / "a"), losses(tmp_path / "plain"), strict=True):
        assert compiled == pytest.approx(plain, rel=1e-3)


def test_compiling_without_a_compiler_is_refused(
    world: Any, at_home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainError, match="compile: found no no-such-compiler, expected a C"):
        run(toy_config(world, tmp_path / "out", compile=True))
    assert not (tmp_path / "out").exists()


def test_a_run_made_before_a_setting_existed_still_counts_as_finished(
    world: Any, at_home: Any, finished: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    record = json.loads((finished / "run.json").read_text())
    del record["config"]["rs_draws"], record["config"]["compile"]
    (old / "run.json").write_text(json.dumps(record))
    assert "nothing to do" in run(toy_config(world, old))[0]
    with pytest.raises(CheckpointError, match="found a run with rs-draws 50, expected 7"):
        run(toy_config(world, old, rs_draws=7))


def test_a_temperature_that_was_not_stored_is_refused(world: Any, at_home: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"temperature is 1.5; the shards store 2.0"):
        run(toy_config(world, tmp_path / "out", divergence="bucket-js", temperature=1.5))


@pytest.mark.slow
def test_accumulation_changes_nothing_but_rounding(world: Any, at_home: Any, tmp_path: Path) -> None:
    for name, micro in (("small", 50), ("large", 10_000)):
        run(toy_config(world, tmp_path / name, micro_tokens=micro, max_steps=3))
    for (_, a), (_, b) in zip(losses(tmp_path / "small"), losses(tmp_path / "large"), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def capped_run(world: Any, out: Path, **more: Any) -> Any:
    """Run a few steps on a processor that imitates one without bfloat16."""
    capped = environment(world) | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-m", "student_train", *arguments(toy_config(world, out, max_steps=2, **more))]
    return subprocess.run(command, env=capped, cwd=out.parent, capture_output=True, text=True)


@pytest.mark.slow
def test_auto_is_float32_on_a_processor_without_bfloat16_and_is_recorded(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    done = capped_run(world, tmp_path / "o", dtype="auto")
    assert done.returncode == 0, done.stderr
    assert "float32 (auto: " in done.stderr
    assert "warning" not in done.stderr
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["config"]["dtype"] == "float32"
    hardware = record["hardware"]
    assert (hardware["dtype"], hardware["dtype_asked"], hardware["threads"]) == ("float32", "auto", 1)
    assert hardware["dtype_why"].startswith("auto: ")
    assert " core" in hardware["machine"]
    with pytest.raises(
        CheckpointError, match="found a run with dtype 'float32', expected 'bfloat16'; give --dtype float"
    ):
        run(toy_config(world, tmp_path / "o", max_steps=2, dtype="bfloat16"))


@pytest.mark.slow
def test_bfloat16_on_a_processor_without_it_runs_and_warns_in_one_line(world: Any, tmp_path: Path) -> None:
    done = capped_run(world, tmp_path / "o", dtype="bfloat16", control=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert "times as long as in float32 (measured now); --dtype auto takes float32" in line
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["hardware"]["dtype"] == record["config"]["dtype"] == "bfloat16"

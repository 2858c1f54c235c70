"""A teacher with one tokenizer teaches a student with another, through the commands' own code; models are tiny.

The shapes are the flagship's: a Llama whose tokenizer has a dummy prefix and byte fallback, and a Phi whose byte-level
tokenizer has added tokens for blanks and no BOS. Once with small tokenizers trained here, once with the real ones.

No counterpart: runs the whole path from `teacher-dump` to the exported student.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from student_train.config import Config
from student_train.errors import Interrupted, TrainError
from student_train.evaluation.evaluate import evaluate
from student_train.evaluation.request import EvaluationRequest
from student_train.training import loop, trainer
from teacher_dump.cli import main as teacher_dump

REPOSITORY = Path(__file__).parents[3]


REAL = Path(__file__).parents[4] / "shared" / "data" / "tokenizers"


def llama(folder: Path, tokenizer: Path, *, vocab: int) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def phi(folder: Path, tokenizer: Path, *, vocab: int, positions: int = 512, dropout: float = 0.1) -> Path:
    """Write a student without weights: it starts fresh, from the run's seed."""
    from transformers import PhiConfig

    PhiConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=positions, bos_token_id=None, eos_token_id=0, resid_pdrop=dropout,
    ).save_pretrained(folder)  # fmt: skip
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def corpus(folder: Path, text: str) -> Path:
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.py").write_text(text.replace("name", f"name_{n}").replace("1234", str(n * 137)) * 2)
    return folder


def dump(model: Path, data: Path, out: Path, *, window: int = 120) -> Path:
    arguments = ["--model", model, "--data", data, "--engine", "transformers", "--out", out, "--window-tokens", window]
    found = CliRunner().invoke(
        teacher_dump, [str(a) for a in arguments] + ["--task-tokens", "1000", "--chunk-tokens", "300"]
    )
    assert found.exit_code == 0, found.output
    return out


@pytest.fixture(scope="module")
def small(folders: dict[str, Path], cross: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("small")
    teacher = llama(root / "teacher", folders["sentencepiece"], vocab=600)
    shards = dump(teacher, corpus(root / "corpus", cross.text), root / "shards")
    return {
        "teacher": teacher,
        "shards": shards,
        "student": phi(root / "student", folders["byte-level"], vocab=512),
        "short": phi(root / "short", folders["byte-level"], vocab=512, positions=40),
    }


def config(small: dict[str, Path], out: Path, **more: Any) -> Config:
    settings: dict[str, Any] = {
        "shards": (str(small["shards"]),), "out": str(out), "student": str(small["student"]), "max_steps": 14,
        "batch_tokens": 300, "micro_tokens": 150, "learning_rate": 1e-2, "held_out": 0.3, "save_every": 5,
        "tensorboard": False, "progress": False, "threads": 1, "dtype": "float32",
    }  # fmt: skip
    return Config(**{**settings, **more})


def run(settings: Config) -> list[str]:
    said: list[str] = []
    trainer.run(settings, command=["student-train"], log=said.append)
    return said


def digest(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(small: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("finished") / "ckpt"
    return out, run(config(small, out, control=True))


@pytest.mark.slow
def test_two_tokenizers_are_noticed_and_said(finished: tuple[Path, list[str]]) -> None:
    said = " ".join(finished[1])
    assert "the student has another tokenizer than the shards: of its" in said
    assert "alm + cells + cross-entropy, weighed by gradient norms" in said


def test_the_loss_falls_and_the_student_nears_the_teacher(finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for part in ("ce_loss", "cells_loss"):
        assert sum(line[part] for line in lines[-3:]) < sum(line[part] for line in lines[:3])
    for line in lines:
        assert sum(line[f"{part}_weight"] for part in ("ce", "alm", "cells")) == pytest.approx(1.0)
    assert lines[0]["ce_weight"] == pytest.approx(0.3)
    assert lines[1]["ce_weight"] != pytest.approx(0.3)
    held = json.loads((out / "run.json").read_text())["held_out"]
    assert set(held["after"]) == {"chunk_kl", "cell_kl", "bits_per_byte", "top1_agreement", "calibration_error"}
    for name in ("cell_kl", "bits_per_byte"):
        assert held["after"][name]["mean"] < held["before"][name]["mean"]
    rows = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    assert sum(row["cell_kl_sum"] for row in rows) / sum(row["boundaries"] for row in rows) == pytest.approx(
        held["after"]["cell_kl"]["mean"]
    )


def test_an_evaluation_has_the_figures_of_the_run(finished: tuple[Path, list[str]], small: dict[str, Path]) -> None:
    request = EvaluationRequest(evaluate=str(finished[0]))
    record = evaluate(config(small, finished[0]), request, command=[], log=lambda line: None)
    (model,) = record["models"]
    assert model["measures"] == json.loads((finished[0] / "run.json").read_text())["held_out"]["after"]
    assert set(model["measures"]) > {"chunk_kl", "cell_kl", "bits_per_byte"}
    assert model["tokenizer"] != "the teacher's"
    values = [row["values"][0] for row in record["furthest"]]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(row["chunk_kl_sum"][0] / row["chunks"][0] for row in record["rows"])
    assert all((row["unit"], row["piece_kl"]) == ("nats per aligned span", []) for row in record["furthest"])
    assert "".join(record["furthest"][0]["pieces"]).strip()
    assert "kinds" not in model


def test_beside_a_model_with_the_teachers_tokenizer_only_bits_per_byte_compare(
    finished: tuple[Path, list[str]], small: dict[str, Path], tmp_path: Path
) -> None:
    request = EvaluationRequest(evaluate=str(finished[0]), vs=str(small["teacher"]), json=str(tmp_path / "e.json"))
    evaluate(config(small, finished[0]), request, command=[], log=lambda line: None)
    record = json.loads((tmp_path / "e.json").read_text())
    first, second = (model["measures"] for model in record["models"])
    assert set(record["differences"]) == {"bits_per_byte"}
    difference = first["bits_per_byte"]["mean"] - second["bits_per_byte"]["mean"]
    assert record["differences"]["bits_per_byte"]["mean"] == pytest.approx(difference)
    sizes = [abs(row["values"][0] - row["values"][1]) for row in record["furthest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {row["unit"] for row in record["furthest"]} == {"bits per byte"}


def test_the_control_is_measured_alike_and_loses_on_the_teacher(finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    main, control = (json.loads((p / "run.json").read_text())["held_out"] for p in (out, out / "control"))
    assert main["before"] == control["before"]
    assert main["after"]["cell_kl"]["mean"] < control["after"]["cell_kl"]["mean"]


def test_the_output_speaks_the_students_own_tokens(finished: tuple[Path, list[str]], small: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, _ = finished
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "phi"
    ours, theirs = (AutoTokenizer.from_pretrained(f) for f in (out, small["student"]))
    assert ours("        return 1")["input_ids"] == theirs("        return 1")["input_ids"]


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    finished: tuple[Path, list[str]], small: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two measurements of the norms, whose smoothed values must be in the checkpoint."""
    out = tmp_path / "ckpt"
    original = loop.take_step

    def stopping(*args: Any, number: int, **more: Any) -> Any:
        return original(*args, number=number, **{**more, "stop": number == 7})

    monkeypatch.setattr(loop, "take_step", stopping)
    with pytest.raises(Interrupted):
        run(config(small, out))
    state = json.loads((out / "checkpoints" / "step-7" / "state.json").read_text())
    assert set(state["norms"]) == {"ce", "alm", "cells"}
    monkeypatch.setattr(loop, "take_step", original)
    run(config(small, out))
    assert digest(out) == digest(finished[0])


@pytest.mark.parametrize("across", ["alm", "cells", "matched", "uld", "alm+matched"])
def test_every_loss_trains(across: str, small: dict[str, Path], tmp_path: Path) -> None:
    run(config(small, tmp_path / "ckpt", across=across, balance="fixed", max_steps=3))
    last = json.loads((tmp_path / "ckpt" / "metrics.jsonl").read_text().splitlines()[-1])
    for part in across.split("+"):
        assert last[f"{part}_weight"] == pytest.approx(0.7 / len(across.split("+")))


def test_windows_too_long_are_cut_counted_and_reported(small: dict[str, Path], tmp_path: Path) -> None:
    said = run(config(small, tmp_path / "ckpt", student=str(small["short"]), max_steps=3))
    record = json.loads((tmp_path / "ckpt" / "run.json").read_text())
    assert record["train"]["left_out"]["rows cut to what the student reads"] > 0
    assert "rows cut to what the student reads" in said[-1]


def test_settings_for_one_tokenizer_are_refused(small: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="divergence is bucket-js, which compares token by token"):
        run(config(small, tmp_path / "ckpt", divergence="bucket-js"))
    with pytest.raises(TrainError, match="across is 'cells\\+uld'"):
        config(small, tmp_path, across="cells+uld")


@pytest.mark.slow
def test_two_processes_train_what_one_trains(small: dict[str, Path], folders: dict[str, Path], tmp_path: Path) -> None:
    """With fixed weights: gradient norms are measured on each rank's own first batch."""
    student = phi(tmp_path / "student", folders["byte-level"], vocab=512, dropout=0.0)
    flags = ["--shards", small["shards"], "--student", student, "--balance", "fixed", "--max-steps", 4, "--threads", 1]
    flags += ["--batch-tokens", 300, "--micro-tokens", 60, "--learning-rate", "3e-3", "--held-out", 0.3]
    flags += ["--no-tensorboard", "--no-progress", "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    lines = []
    for ranks in (1, 2):
        torchrun = [
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            ranks,
            "--master-port",
            31000 + os.getpid() % 900,
        ]
        command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "student_train", *flags]
        command += ["--out", tmp_path / str(ranks)]
        done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, timeout=540)
        assert done.returncode == 0, done.stderr
        lines.append([json.loads(line) for line in (tmp_path / str(ranks) / "metrics.jsonl").read_text().splitlines()])
    for one, two in zip(*lines, strict=True):
        for part in ("loss", "ce_loss", "alm_loss", "cells_loss"):
            assert two[part] == pytest.approx(one[part], rel=2e-5)
    held = [json.loads((tmp_path / str(r) / "run.json").read_text())["held_out"] for r in (1, 2)]
    assert held[1]["after"]["cell_kl"]["mean"] == pytest.approx(held[0]["after"]["cell_kl"]["mean"], rel=1e-4)
    assert held[1]["tokens"] == held[0]["tokens"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/tokenizers")
def test_the_flagships_own_tokenizers(cross: Any, tmp_path: Path) -> None:
    teacher = llama(tmp_path / "teacher", REAL / "llama-2", vocab=32_016)
    student = phi(tmp_path / "student", REAL / "phi-2", vocab=51_200)
    places = {"shards": dump(teacher, corpus(tmp_path / "corpus", cross.text), tmp_path / "shards"), "student": student}
    run(config(places, tmp_path / "ckpt", max_steps=4, save_every=2))
    held = json.loads((tmp_path / "ckpt" / "run.json").read_text())["held_out"]
    assert held["after"]["cell_kl"]["mean"] < held["before"]["cell_kl"]["mean"]

"""Tests of which layers a shallower student keeps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import shards
from student_train.config import Config, from_dict
from student_train.data.hashing import HeldOutRule, is_held_out
from student_train.errors import CheckpointError, TrainError
from student_train.model import loading as students
from student_train.pruning import layer_choice
from student_train.training import trainer
from tests.student_train.pruning.test_influence import slow_influence, slow_removal_kl


@pytest.mark.parametrize(
    ("influence", "keep", "kept"),
    [
        ((0.5, 0.1, 0.3, 0.2), 2, (0, 2)),
        ((0.1, 0.5, 0.2, 0.3), 3, (1, 2, 3)),
        ((0.2, 0.2, 0.2, 0.2), 3, (1, 2, 3)),  # equal: the earlier goes
        ((0.2, 0.1), 2, (0, 1)),
    ],
)
def test_the_layers_of_lowest_influence_go(influence: tuple[float, ...], keep: int, kept: tuple[int, ...]) -> None:
    choice = layer_choice.by_influence(influence, keep, method="importance", tokens=7)
    assert (choice.kept, choice.method, choice.num_layers) == (kept, "importance", len(influence))


def test_a_choice_survives_json() -> None:
    for choice in (
        layer_choice.by_influence((0.25, 0.5, 0.125), 2, method="kl", tokens=9),
        layer_choice.evenly(5, 3, reason="influence not measured: it starts fresh"),
    ):
        assert layer_choice.from_dict(json.loads(json.dumps(choice.to_dict()))) == choice


def test_layers_are_spread_evenly_and_keep_both_ends() -> None:
    assert layer_choice.evenly_spaced_layers(30, 2) == [0, 29]
    assert layer_choice.evenly_spaced_layers(5, 3) == [0, 2, 4]
    assert layer_choice.evenly_spaced_layers(30, 12) == [0, 3, 5, 8, 11, 13, 16, 18, 21, 24, 26, 29]
    for have in range(2, 40):
        for keep in range(2, have + 1):
            kept = layer_choice.evenly_spaced_layers(have, keep)
            assert len(set(kept)) == keep
            assert (kept[0], kept[-1]) == (0, have - 1)


def test_runs_of_indices_are_joined() -> None:
    assert layer_choice.format_ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert layer_choice.format_ranges([3]) == "3"


def test_held_out_rows_are_not_measured_on(world: Any) -> None:
    cache = shards.open(str(world.shards))
    rows = layer_choice.training_rows(cache, held_out=HeldOutRule(fraction=0.5), max_tokens=10**6, row_tokens=16)
    expected = [
        chunk.row(r).tokens[:16]
        for chunk in cache
        for r, info in enumerate(chunk.rows)
        if not is_held_out(info.document, fraction=0.5)
    ]
    assert 0 < len(expected) < len(world.rows)
    assert [row.tolist() for row in rows] == [row.tolist() for row in expected]


def test_no_more_tokens_are_read_than_needed(world: Any) -> None:
    cache = shards.open(str(world.shards))
    read: list[int] = []

    class Counting:
        def __len__(self) -> int:
            return len(cache)

        def __getitem__(self, i: int) -> Any:
            read.append(i)
            return cache[i]

    rows = layer_choice.training_rows(Counting(), held_out=HeldOutRule(fraction=0.0), max_tokens=20, row_tokens=8)
    assert [len(row) for row in rows] == [8, 8, 4]
    assert read == [0]


def config(world: Any, out: Path, **more: Any) -> Config:
    settings: dict[str, Any] = {
        "shards": (str(world.shards),),
        "out": str(out),
        "student": "teacher",
        "student_layers": 2,
        "max_steps": 4,
        "batch_tokens": 150,
        "micro_tokens": 80,
        "held_out": 0.2,
        "tensorboard": False,
        "progress": False,
        "threads": 1,
    }
    return Config(**{**settings, **more})


def record_of(settings: Config) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    trainer.run(settings, command=["student-train"], log=said.append)
    return json.loads((Path(settings.out) / "run.json").read_text()), said


@pytest.mark.slow
@pytest.mark.parametrize(("method", "slow"), [("kl", slow_removal_kl), ("importance", slow_influence)])
def test_a_run_chooses_by_a_measure_says_so_and_records_it(
    world: Any, at_home: Any, tmp_path: Path, method: str, slow: Any
) -> None:
    from transformers import AutoModelForCausalLM

    record, said = record_of(config(world, tmp_path / "o", control=True, learning_rate=0.0, layer_choice=method))
    choice = record["student"]["layer_choice"]
    teacher = AutoModelForCausalLM.from_pretrained(world.teacher_dir, dtype=torch.float32)
    measure = layer_choice.MEASURES[method]
    rows = layer_choice.training_rows(
        shards.open(str(world.shards)), held_out=HeldOutRule(fraction=0.2), max_tokens=measure.tokens
    )
    influence = slow(teacher, rows)
    assert choice["method"] == method
    assert choice["influence"] == pytest.approx(influence, rel=1e-3, abs=1e-6)
    assert choice["kept"] == sorted(sorted(range(4), key=influence.__getitem__)[2:])
    assert choice["tokens"] == sum(map(len, rows))
    lines = [line for line in said if line.startswith("keeping layers")]
    assert len(lines) == 1  # the control takes over its run's layers
    assert measure.title in lines[0]
    assert all(f"{value:.3f}".removeprefix("0") in lines[0] for value in choice["influence"])
    control = json.loads((tmp_path / "o" / "control" / "run.json").read_text())
    assert control["student"]["layer_choice"] == choice
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "o", dtype=torch.float32)
    for layer, kept in zip(student.model.layers, choice["kept"], strict=True):
        expected = teacher.model.layers[kept].mlp.up_proj.weight
        assert torch.equal(layer.mlp.up_proj.weight, expected)  # a learning rate of 0 leaves the weights as they are


def test_kl_is_the_default() -> None:
    assert Config().layer_choice == "kl"


def test_even_measures_nothing(world: Any, at_home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_choice, "training_rows", lambda *_, **__: pytest.fail("measured"))
    record, _ = record_of(config(world, tmp_path / "o", layer_choice="even"))
    assert record["student"]["layer_choice"] | {"num_layers": 4} == layer_choice.evenly(4, 2).to_dict()


def test_a_student_that_starts_fresh_is_cut_evenly_and_told_why(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    (folder / "config.json").write_text((world.teacher_dir / "config.json").read_text())
    record, said = record_of(config(world, tmp_path / "o", student=str(folder)))
    assert record["student"]["layer_choice"]["kept"] == [0, 3]
    assert any("influence not measured: it starts fresh" in line for line in said)


@pytest.mark.slow
def test_a_run_that_goes_on_takes_its_layers_from_the_checkpoint(
    world: Any, at_home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = record_of(config(world, tmp_path / "whole", save_every=2, keep=9))
    (tmp_path / "part").mkdir()
    (tmp_path / "whole" / "checkpoints").rename(tmp_path / "part" / "checkpoints")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "step-4")
    monkeypatch.setattr(layer_choice, "training_rows", lambda *_, **__: pytest.fail("measured again"))
    again, _ = record_of(config(world, tmp_path / "part", save_every=2, keep=9))
    assert again["student"] == whole["student"]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "part"))
    assert first == second


def test_a_checkpoint_from_before_the_setting_is_not_continued_with_other_layers(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    record_of(config(world, tmp_path / "o", layer_choice="even", save_every=2, keep=9))
    for path in (tmp_path / "o" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        del state["sha256"], state["layer_choice"], state["teacher_completions"], state["config"]["layer_choice"]
        path.write_text(json.dumps(state))
    (tmp_path / "o" / "run.json").unlink()
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (tmp_path / "o" / name).unlink()
    for path in (tmp_path / "o").glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="found a run with layer-choice 'even', expected 'kl'"):
        record_of(config(world, tmp_path / "o", save_every=2, keep=9))
    record, _ = record_of(config(world, tmp_path / "o", layer_choice="even", save_every=2, keep=9))
    assert record["student"]["layer_choice"]["method"] == "even"


def test_the_record_of_an_older_run_is_repeated_with_even_layers() -> None:
    settings = Config().to_dict()
    del settings["layer_choice"]
    assert from_dict(settings).layer_choice == "even"


def test_a_student_with_all_its_layers_has_no_choice(world: Any, at_home: Any) -> None:
    cache = shards.open(str(world.shards))
    loaded = students.load(
        "teacher",
        layers=4,
        teacher=dataclasses.replace(cache.manifest.teacher),
        shards_tokenizer=cache.tokenizer_dir,
        seed=0,
        choose=lambda *_, **__: pytest.fail("chosen"),
    )
    assert loaded.layers is None
    assert loaded.layer_choice is None


def test_rows_beyond_the_context_are_named_before_influence_is_measured(
    world: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_choice, "training_rows", lambda *_, **__: pytest.fail("measured"))
    folder = tmp_path / "narrow"
    model = tools.llama(vocab=300, layers=4)
    model.config.max_position_embeddings = 4
    model.save_pretrained(folder)
    for path in shards.open(str(world.shards)).tokenizer_dir.iterdir():
        shutil.copy(path, folder)
    with pytest.raises(TrainError, match="the student reads at most 4; dump again with teacher-dump --window-tokens 4"):
        record_of(config(world, tmp_path / "o", student=str(folder)))


def test_only_the_rank_that_leads_measures_and_all_keep_its_layers(
    world: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from student_train.training.build_run import _choose_layers
    from student_train.training.runtime import Runtime

    class Rank:
        """A rank of two; `told` is what the main rank gives."""

        def __init__(self, *, is_main: bool, told: Any = None) -> None:
            self.is_main, self.told = is_main, told

        def gather(self, mine: Any) -> list[Any]:
            if self.is_main:
                self.told = mine
            else:
                assert mine is None
            return [self.told, None]

    model, said = tools.llama(vocab=300), list[str]()
    more: dict[str, Any] = {
        "unfit": "",
        "config": config(world, Path("o")),
        "caches": [shards.open(str(world.shards))],
        "known": None,
    }
    first = Rank(is_main=True)
    choice = _choose_layers(model, 2, runtime=Runtime(world=first, log=said.append), **more)  # type: ignore[arg-type]
    assert choice.method == "kl"
    monkeypatch.setattr(layer_choice, "training_rows", lambda *_, **__: pytest.fail("measured"))
    other = Runtime(world=Rank(is_main=False, told=first.told), log=said.append)
    assert _choose_layers(model, 2, runtime=other, **more) == choice  # type: ignore[arg-type]

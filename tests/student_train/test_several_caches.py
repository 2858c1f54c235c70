"""Tests of whole runs on several caches, of teachers with the student's tokenizer and with another.

No counterpart: a run uses every module of the package.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

import shards
from student_train.cli import main
from student_train.data.hashing import is_held_out
from student_train.errors import CheckpointError, TrainError
from student_train.evaluation.evaluate import evaluate
from student_train.evaluation.request import EvaluationRequest
from student_train.training import loop
from tests.student_train.forked import train_in_ranks
from tests.student_train.responses import VOCAB, make_world, turns
from tests.student_train.toy import digest, losses, run, toy_config
from tests.student_train.two_teachers import TwoTeachers, write_two


@pytest.fixture(scope="module")
def two(world: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> TwoTeachers:
    return write_two(tmp_path_factory.mktemp("two"), world, tools)


def settings_of(world: Any, two: TwoTeachers, out: Path, **more: Any) -> Any:
    caches = (f"{two.same}=0.6", f"{two.other}=0.4")
    small = {"max_steps": 12, "batch_tokens": 300, "micro_tokens": 200, "save_every": 4, "eval_every": 6}
    return toy_config(world, out, **{"shards": caches, **small, **more})


@pytest.fixture(scope="module")
def finished(world: Any, two: TwoTeachers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("several") / "ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
        run(settings_of(world, two, out))
    return out


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def test_the_record_and_every_checkpoint_name_every_manifest(two: TwoTeachers, finished: Path) -> None:
    record, digests = record_of(finished), [shards.open(path).manifest_sha256 for path in (two.same, two.other)]
    for place in (record, json.loads((finished / "checkpoints" / "step-8" / "state.json").read_text())):
        assert [entry["manifest_sha256"] for entry in place["caches"]] == digests
        assert [entry["share"] for entry in place["caches"]] == [0.6, 0.4]
        assert place["manifest_sha256"] not in digests
    assert [entry["objective"] for entry in record["caches"]] == [1, 2]
    assert [entry["teacher"]["name"] for entry in record["caches"]] == ["tiny-teacher", "other-teacher"]
    read = [entry["read"]["tokens_with_record"] for entry in record["caches"]]
    assert sum(entry["read"]["rows"] for entry in record["caches"]) == record["train"]["rows"]
    assert read[0] / sum(read) == pytest.approx(0.6, abs=0.1)


def test_held_out_figures_are_those_of_each_cache_and_of_both(two: TwoTeachers, finished: Path) -> None:
    held_out = record_of(finished)["held_out"]
    lines = [json.loads(line) for line in (finished / "held_out.jsonl").read_text().splitlines()]
    for number, path in enumerate((two.same, two.other), 1):
        wanted = [
            info.document
            for chunk in shards.open(path)
            for info in chunk.rows
            if is_held_out(info.document, fraction=0.2)
        ]
        assert [line["document"] for line in lines if line["cache"] == number] == wanted
        part = held_out["caches"][number - 1]
        assert part["rows"] == len(wanted) > 0
    first, second = held_out["caches"]
    assert {"kl", "bits_per_byte"} < set(first["after"])
    assert {"chunk_kl", "cell_kl", "bits_per_byte"} < set(second["after"])
    assert set(held_out["after"]) == {"bits_per_byte", "calibration_error"}
    total = sum(part["after"]["bits_per_byte"]["mean"] * part["bytes"] for part in (first, second))
    assert held_out["after"]["bits_per_byte"]["mean"] == pytest.approx(total / held_out["bytes"])
    (curve,) = [json.loads(line) for line in (finished / "held_out_curve.jsonl").read_text().splitlines()]
    assert {"bits_per_byte", "kl/1", "bits_per_byte/1", "chunk_kl/2", "bits_per_byte/2"} < set(curve)


def test_each_step_has_the_loss_of_its_rows(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    both = [line for line in lines if "kd_loss/1" in line and "alm_loss/2" in line]
    assert len(both) > 6
    assert all({"ce_loss/1", "ce_loss/2", "cells_loss/2", "alm_weight/2"} < set(line) for line in both)


@pytest.mark.slow
def test_a_run_stopped_anywhere_ends_in_the_same_bits(
    world: Any, at_home: Any, two: TwoTeachers, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "stopped", loop.take_step

    def dies(*args: Any, number: int, **named: Any) -> Any:
        if number == 7:
            raise KeyboardInterrupt
        return real(*args, number=number, **named)

    monkeypatch.setattr(loop, "take_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings_of(world, two, out))
    monkeypatch.setattr(loop, "take_step", real)
    assert any("continuing at step 4 of 12" in line for line in run(settings_of(world, two, out)))
    assert digest(out) == digest(finished)
    assert losses(out) == losses(finished)
    assert (out / "held_out.jsonl").read_bytes() == (finished / "held_out.jsonl").read_bytes()
    assert record_of(out)["caches"] == record_of(finished)["caches"]


@pytest.mark.slow
def test_two_ranks_continue_the_run_of_one_and_end_as_it_does(
    world: Any, at_home: Any, two: TwoTeachers, tmp_path: Path
) -> None:
    """Shares of the parts are fixed, as ranks measure norms on their own rows."""
    one, out = tmp_path / "one", tmp_path / "ranks"
    small = {"max_steps": 8, "eval_every": 0, "balance": "fixed"}
    run(settings_of(world, two, one, **small))
    shutil.copytree(one / "checkpoints" / "step-4", out / "checkpoints" / "step-4")
    shutil.copy(one / "metrics.jsonl", out)
    said = train_in_ranks(world, settings_of(world, two, out, **small), ranks=2)
    assert said.count(f"{out}: continuing at step 4 of 8") == 1
    assert [loss for _, loss in losses(out)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)
    expected, found = (safetensors.torch.load_file(place / "model.safetensors") for place in (one, out))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)
    ours, theirs = record_of(out), record_of(one)
    assert ours["caches"] == theirs["caches"]
    assert ours["train"]["tokens"] == theirs["train"]["tokens"]
    for part, other in zip(ours["held_out"]["caches"], theirs["held_out"]["caches"], strict=True):
        means = [each["after"]["bits_per_byte"]["mean"] for each in (part, other)]
        assert means[0] == pytest.approx(means[1], rel=1e-4)
    rows = [(place / "held_out.jsonl").read_text().splitlines() for place in (out, one)]
    assert [json.loads(line)["document"] for line in rows[0]] == [json.loads(line)["document"] for line in rows[1]]


@pytest.mark.slow
def test_a_published_run_is_repeated_from_both_caches(
    world: Any, two: TwoTeachers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
    base, out, published = tmp_path / "base", tmp_path / "run", tmp_path / "published"
    shutil.copytree(world.teacher_dir, base)
    run(settings_of(world, two, out, student=str(base), max_steps=4, eval_every=0))

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    urls = ("--cache-url", two.other, "--cache-url", two.same)
    done = invoke("--publish", out, published, *urls)
    assert done.exit_code == 0, done.output
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "stranger"))
    done = invoke("--repeat", published, "--out", tmp_path / "again", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "again" / "repeat.json").read_text())["verdict"] == "identical"
    assert record_of(tmp_path / "again")["manifest_sha256"] == record_of(out)["manifest_sha256"]
    swapped = ("--shards", f"{two.other}=0.4", "--shards", f"{two.same}=0.6")
    done = invoke("--repeat", published, "--out", tmp_path / "swapped", *swapped)
    assert done.exit_code == 1
    assert "leave --shards out to fetch it" in done.output


def test_other_caches_order_or_weights_than_the_checkpoints_are_refused_by_name(
    world: Any, at_home: Any, two: TwoTeachers, finished: Path
) -> None:
    same, other = (shards.open(path).manifest_sha256[:12] for path in (two.same, two.other))
    found = rf"found a run on the shards with manifest {same}=0.6 \+ {other}=0.4, expected"
    cases = {
        rf"{same}=0.5 \+ {other}=0.5": (f"{two.same}=1", f"{two.other}=1"),
        rf"{other}=0.4 \+ {same}=0.6": (f"{two.other}=0.4", f"{two.same}=0.6"),
        rf"{same} \+ {other} of": (str(two.same), str(two.other)),
        rf"{same} of": (str(two.same),),
    }
    for expected, caches in cases.items():
        with pytest.raises(CheckpointError, match=f"{found} {expected}"):
            run(settings_of(world, two, finished, shards=caches))
    sevenths = (f"{two.same}=6", f"{two.other}=4")
    assert "nothing to do" in run(settings_of(world, two, finished, shards=sevenths))[0]


def test_a_row_of_two_caches_is_on_one_side_though_only_one_has_all_turns(tools: Any, tmp_path: Path) -> None:
    """The second cache has the last turn of each conversation: those rows are in the first one, too."""
    chats = make_world(tools, tmp_path / "w", write=turns, corpus={"train_on": "all"})
    last = tools.write_cache(
        tmp_path / "last", chats.rows[1::2], chats.teacher_dir, vocab=VOCAB, version=2, corpus={"train_on": "last"}
    )
    out, settings = tmp_path / "out", {"shards": (str(chats.shards), str(last)), "max_steps": 0, "epochs": 1}
    run(toy_config(chats, out, student=str(chats.teacher_dir), student_layers=0, held_out=0.4, **settings))
    lines = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    held = [{line["document"] for line in lines if line["cache"] == number} for number in (1, 2)]
    second_turns = {row.rows[0].document for row in chats.rows[1::2]}
    assert held[1] == held[0] & second_turns
    assert 0 < len(held[1]) < len(second_turns)
    read = [cache["read"]["rows"] for cache in record_of(out)["caches"]]
    assert read == [len(chats.rows) - len(held[0]), len(second_turns) - len(held[1])]  # one pass over all others


@pytest.mark.slow
def test_one_cache_with_a_weight_is_one_cache_without(world: Any, at_home: Any, tmp_path: Path) -> None:
    """The order itself is pinned in `data/test_sampler.py`."""
    outs = []
    for name, weight in (("plain", ""), ("one", "=1"), ("half", "=0.5")):
        outs.append(tmp_path / name)
        run(toy_config(world, outs[-1], max_steps=4, save_every=0, shards=(f"{world.shards}{weight}",)))
    assert len({digest(out) for out in outs}) == 1
    assert losses(outs[0]) == losses(outs[1]) == losses(outs[2])
    record = record_of(outs[1])
    assert record["manifest_sha256"] == shards.open(world.shards).manifest_sha256
    assert "caches" not in record
    assert {"kd_loss", "ce_loss"} < set(json.loads((outs[1] / "metrics.jsonl").read_text().splitlines()[0]))


def test_a_cache_named_twice_is_refused(world: Any, at_home: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"found the cache of manifest \w+ as .* and as .*, expected each cache once"):
        run(toy_config(world, tmp_path / "o", shards=(str(world.shards), f"{world.shards}/")))


def test_an_evaluation_takes_one_cache(world: Any, two: TwoTeachers, tmp_path: Path) -> None:
    config = settings_of(world, two, tmp_path)
    with pytest.raises(TrainError, match="evaluate: found 2 caches, expected one"):
        evaluate(config, EvaluationRequest(evaluate="teacher"), command=[], log=print)


def test_an_evaluation_ignores_what_only_a_loss_needs(world: Any, two: TwoTeachers, student: Path) -> None:
    """As of a recorded run whose settings the model, with another tokenizer than the shards, could not train with."""
    loss = {"relations_weight": 1.0, "divergence": "bucket-js", "temperature": 2.0, "template": "own"}
    records = [
        evaluate(
            toy_config(world, two.other.parent / "unused", shards=(str(two.other),), held_out=0.4, **more),
            EvaluationRequest(evaluate=str(student)),
            command=[],
            log=lambda line: None,
        )
        for more in ({}, loss)
    ]
    assert "chunk_kl" in records[0]["models"][0]["measures"]
    assert records[0]["models"] == records[1]["models"]

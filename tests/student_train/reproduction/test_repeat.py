"""Tests of repeating runs: from a web server, a bucket and a folder; what wins; what is refused; the verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import shards
import shards.storage.store as store_module
from shards.edit.publish import publish
from tests.shards.faulty_s3 import Proxy
from tests.student_train.reproduction.conftest import invoke
from tests.student_train.reproduction.faulty_http import web_server


@pytest.fixture(scope="module")
def place(world: Any, recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cache and a run, published beside each other."""
    root = tmp_path_factory.mktemp("place")
    publish(shards.open(world.shards), str(root / "cache"))
    done = invoke("--publish", recorded, root / "run", "--cache-url", "../cache")
    assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)


def verdict(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "repeat.json").read_text()))


@pytest.mark.slow
def test_a_stranger_repeats_a_run_from_a_web_server_without_ranges(
    place: Path, elsewhere: Path, tmp_path: Path, quick_retries: None
) -> None:
    """Every file meets a failed, a changed and a cut reply first."""
    with web_server(place) as (url, asked):
        done = invoke("--repeat", f"{url}/run", "--out", tmp_path / "again", "--no-tensorboard", "--no-progress")
        assert done.exit_code == 0, done.output
        del asked["/cache/README.md"]  # for people: nothing states its digest
        assert min(asked.values()) >= 4
        assert "/run/model.safetensors" not in asked
        again = invoke("--repeat", f"{url}/run", "--out", tmp_path / "again")
        assert again.exit_code == 0
    assert "again: identical: every weight is the same to the last bit" in done.output
    assert "identical" in again.output
    found = verdict(tmp_path / "again")
    assert found["run"] == f"{url}/run"
    assert found["weights"]["compared_steps"] == [0, 2, 4]
    names = ("model.safetensors", "held_out.jsonl", "config.json")
    assert all((place / "run" / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in names)


@pytest.mark.slow
def test_a_stranger_repeats_a_run_from_a_faulty_bucket(
    s3: Proxy, world: Any, recorded: Path, elsewhere: Path, tmp_path: Path
) -> None:
    publish(shards.open(world.shards), "s3://bucket/cache")
    assert invoke("--publish", recorded, "s3://bucket/run", "--cache-url", "s3://bucket/cache").exit_code == 0
    s3.misbehave(0.2, "500", "reset", "cut", "short", "flip", seed=2)
    done = invoke("--repeat", "s3://bucket/run", "--out", tmp_path / "again", "--no-tensorboard", "--no-progress")
    assert done.exit_code == 0, done.output
    assert s3.met.total() > 0
    assert verdict(tmp_path / "again")["verdict"] == "identical"


def test_a_local_record_gets_the_same_verdict(recorded: Path, at_home: Any, tmp_path: Path) -> None:
    done = invoke("--repeat", recorded / "run.json", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert verdict(tmp_path / "again")["verdict"] == "identical"


def test_a_run_that_does_not_repeat_is_different_and_exits_with_1(
    run_folder: Path, at_home: Any, tmp_path: Path
) -> None:
    """The record is changed: other digests, another loss at step 3, held-out rows that are far off."""
    record = json.loads((run_folder / "run.json").read_text())
    record["weights"]["exported"] = record["weights"]["checkpoints"]["4"] = "0" * 64
    (run_folder / "run.json").write_text(json.dumps(record))
    for name, key, first in (("metrics.jsonl", "loss", 2), ("held_out.jsonl", "kl_sum", 0)):
        lines = [json.loads(line) for line in (run_folder / name).read_text().splitlines()]
        moved = [{**line, key: line[key] + 50} if i >= first else line for i, line in enumerate(lines)]
        (run_folder / name).write_text("".join(json.dumps(line) + "\n" for line in moved))
    done = invoke("--repeat", run_folder, "--out", tmp_path / "again")
    assert done.exit_code == 1
    found = verdict(tmp_path / "again")
    assert found["verdict"] == "different"
    assert found["losses"]["beyond_rounding"]["step"] == 3
    assert "beyond rounding they part at step 3: recorded" in done.output


def test_another_seed_is_another_run_and_not_compared(recorded: Path, at_home: Any, tmp_path: Path) -> None:
    done = invoke("--repeat", recorded / "run.json", "--out", tmp_path / "again", "--seed", 7)
    assert done.exit_code == 0, done.output
    assert "not compared with" in done.output
    assert "it has seed 0, this run 7" in done.output
    assert not (tmp_path / "again" / "repeat.json").exists()


def test_a_record_of_an_earlier_release_is_repeated_and_not_compared(
    run_folder: Path, at_home: Any, tmp_path: Path
) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    del record["weights"], record["noise"]
    (run_folder / "run.json").write_text(json.dumps(record))
    done = invoke("--repeat", run_folder / "run.json", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert "it is of an earlier release, which recorded no digests of weights" in done.output


@pytest.mark.parametrize(("recorded_threads", "expected"), [(1, 1), (10_000, 0)])
def test_the_recorded_number_of_threads_is_used_where_there_are_as_many_cores(
    recorded_threads: int, expected: int, run_folder: Path
) -> None:
    from student_train.reproduction.fetch import RunSource
    from student_train.reproduction.repeat import settings_of

    record = json.loads((run_folder / "run.json").read_text())
    record["config"]["threads"], record["hardware"]["threads"] = 0, recorded_threads
    (run_folder / "run.json").write_text(json.dumps(record))
    source = RunSource(record=run_folder / "run.json")
    assert settings_of(source, {}, (), needs_out=False, log=print).threads == expected


def test_a_student_is_checked_against_its_record(run_folder: Path, place: Path, elsewhere: Path) -> None:
    arguments = ("--repeat", place / "run", "--evaluate")
    same = invoke(*arguments, place / "run")
    assert same.exit_code == 0, same.output
    assert f"{place / 'run'}: the weights and the figures are the record's" in same.output
    weights = run_folder / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
    assert "whose weights have another digest: not compared" in invoke(*arguments, run_folder).output


def test_figures_that_the_weights_do_not_have_are_named(run_folder: Path, at_home: Any) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    record["held_out"]["after"]["kl"]["mean"] += 0.01
    (run_folder / "run.json").write_text(json.dumps(record))
    refused = invoke("--repeat", run_folder / "run.json", "--evaluate", run_folder)
    assert refused.exit_code == 1
    assert "found other figures: kl is " in refused.output


@pytest.mark.parametrize("run", ["published", "local"])
def test_a_repeated_run_needs_a_folder_of_its_own(
    run: str, place: Path, run_folder: Path, at_home: Any, tmp_path: Path
) -> None:
    """In the folder of the recorded run, or of a copy, there is nothing to train, and a comparison with itself."""
    place = place / "run" if run == "published" else run_folder
    refused = invoke("--repeat", place)
    assert refused.exit_code == 1
    assert "repeating a run needs --out" in refused.output
    (tmp_path / "link").symlink_to(place)
    for out in (place, tmp_path / "link", shutil.copytree(place, tmp_path / "copy")):
        refused = invoke("--repeat", place, "--out", out)
        assert refused.exit_code == 1
        assert f"{out}: found the recorded run itself, or a copy of it" in refused.output
        assert not (out / "repeat.json").exists()


@pytest.mark.parametrize("given", [True, False])
def test_other_shards_than_the_runs_are_refused_before_training(
    given: bool, world: Any, place: Path, elsewhere: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(place, tmp_path / "moved"))
    manifest = shards.open(moved / "cache").manifest
    object.__setattr__(manifest, "settings", {"seed": 1})
    (moved / "cache" / "manifest.json").write_bytes(manifest.to_bytes())
    more = ["--shards", moved / "cache"] if given else []
    refused = invoke("--repeat", (place if given else moved) / "run", "--out", tmp_path / "again", *more)
    assert refused.exit_code == 1
    assert "which the run was trained" in refused.output
    assert not (tmp_path / "again").exists()


def test_a_published_record_writes_and_sends_nothing_by_itself(
    run_folder: Path, place: Path, elsewhere: Path, tmp_path: Path, world: Any
) -> None:
    """Folders and services come from the command line, not from the stranger's record."""
    from student_train.config import Config
    from student_train.reproduction.fetch import find_run
    from student_train.reproduction.repeat import settings_of

    record = json.loads((run_folder / "run.json").read_text())
    record["config"] |= {"wandb": True, "tensorboard": True, "out": "/etc", "shards": "/etc", "control": True}
    (run_folder / "run.json").write_text(json.dumps(record))
    target = tmp_path / "place" / "run"
    done = invoke("--publish", run_folder, target, "--cache-url", place / "cache")
    assert done.exit_code == 0, done.output
    source = find_run(str(target), log=print)
    settings = Config(out="here", wandb=False, tensorboard=False).to_dict()
    config = settings_of(source, settings, {"out", "tensorboard"}, log=print)
    assert (config.wandb, config.tensorboard, config.out, config.control) == (False, False, "here", False)
    assert config.shards == (str(place / "cache"),)
    assert config.student == str(source.base)
    assert config.seed == record["config"]["seed"]

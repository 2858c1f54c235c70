"""Tests of publishing a run: complete or not there at all, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import shards
from shards.edit.publish import publish
from shards.storage.store import Store, open_store
from student_train.reproduction.publication import PUBLICATION_NAME, read_publication
from tests.shards.fake_hub import FakeHub
from tests.shards.faulty_s3 import Proxy
from tests.student_train.reproduction.conftest import invoke

URL = "s3://bucket/run"


@pytest.fixture
def place(world: Any, tmp_path: Path) -> Path:
    """Return a folder with the cache in `cache`, where `run` can be published."""
    publish(shards.open(world.shards), str(tmp_path / "place" / "cache"))
    return tmp_path / "place"


def test_a_run_is_published_with_its_base_and_the_address_of_its_shards(recorded: Path, place: Path) -> None:
    done = invoke("--publish", recorded, place / "run", "--cache-url", "../cache")
    assert done.exit_code == 0, done.output
    publication = read_publication(open_store(place / "run"))
    assert [cache.url for cache in publication.caches] == ["../cache"]
    names = [file.name for file in publication.files]
    assert names[0] == "model.safetensors"
    assert names[-2:] == ["config.json", "run.json"]
    assert {"base/model.safetensors", "base/config.json", "tokenizer.json", "held_out.jsonl"} <= set(names)
    assert all((place / "run" / file.name).stat().st_size == file.bytes for file in publication.files)
    again = invoke("--publish", recorded, place / "run", "--cache-url", "../cache")
    assert f"sent 0 files, {len(names)} were there" in again.output


@pytest.mark.slow
def test_to_a_bucket_the_index_goes_last(s3: Proxy, world: Any, recorded: Path) -> None:
    publish(shards.open(world.shards), "s3://bucket/cache")
    s3.misbehave(0.2, "500", "503", "reset", seed=1)
    assert invoke("--publish", recorded, URL, "--cache-url", "../cache").exit_code == 0
    assert s3.met.total() > 0
    puts = [path.rpartition("/run/")[2].split("?")[0] for method, path, _ in s3.requests if method == "PUT"]
    assert puts[-1] == PUBLICATION_NAME
    s3.misbehave(0)
    assert read_publication(open_store(URL)).entry("run.json") is not None


def test_an_interrupted_publish_looks_like_nothing_and_is_continued(
    recorded: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Store.upload

    def interrupted(store: Store, path: Path, name: str, **more: Any) -> None:
        if name == "config.json":
            raise KeyboardInterrupt
        upload(store, path, name, **more)

    arguments = ("--publish", recorded, place / "run", "--cache-url", "../cache")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", interrupted)
        assert invoke(*arguments).exit_code != 0
    names = {entry.name for entry in (place / "run").iterdir()}
    assert "model.safetensors" in names
    assert not names & {"config.json", "run.json", PUBLICATION_NAME}
    refused = invoke("--repeat", place / "run", "--out", place / "again")
    assert f"found no {PUBLICATION_NAME}, expected a run that 'student-train --publish' has sent" in refused.output
    done = invoke(*arguments)
    assert "sent 2 files" in done.output


def test_a_run_on_local_shards_needs_an_address(recorded: Path, place: Path) -> None:
    refused = invoke("--publish", recorded, place / "run")
    assert refused.exit_code == 1
    assert "nothing says where; expected an address of that very cache" in refused.output
    assert "add --cache-url URL" in refused.output
    assert not (place / "run").exists()


def test_a_cache_that_is_not_published_yet_is_named(recorded: Path, tmp_path: Path) -> None:
    refused = invoke("--publish", recorded, tmp_path / "run", "--cache-url", "../cache")
    assert refused.exit_code == 1
    assert f"cache-url ../cache: found no cache at {tmp_path / 'cache'}" in refused.output
    assert "publish it first: logit-shards publish" in refused.output


def test_another_cache_at_the_address_is_refused(recorded: Path, place: Path) -> None:
    manifest = shards.open(place / "cache").manifest
    object.__setattr__(manifest, "settings", {"seed": 1})
    (place / "cache" / "manifest.json").write_bytes(manifest.to_bytes())
    refused = invoke("--publish", recorded, place / "run", "--cache-url", "../cache")
    assert refused.exit_code == 1
    assert "and found ../cache with manifest" in refused.output


def test_a_folder_of_this_machine_is_no_address_for_readers_of_a_bucket(s3: Proxy, recorded: Path, place: Path) -> None:
    refused = invoke("--publish", recorded, URL, "--cache-url", place / "cache")
    assert refused.exit_code == 1
    assert "found a folder of this machine, expected an address that readers of s3://bucket/run reach" in refused.output


def test_changed_weights_are_refused(run_folder: Path, place: Path) -> None:
    weights = run_folder / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    refused = invoke("--publish", run_folder, place / "run", "--cache-url", "../cache")
    assert refused.exit_code == 1
    assert "the model was changed after its run" in refused.output


def test_another_base_than_the_runs_is_refused(
    run_folder: Path, recorded: Path, place: Path, tools: Any, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(recorded.parent / "base", base)
    tools.llama(vocab=300, seed=7).save_pretrained(base)
    record = json.loads((run_folder / "run.json").read_text())
    record["config"]["student"] = str(base)
    (run_folder / "run.json").write_text(json.dumps(record))
    refused = invoke("--publish", run_folder, place / "run", "--cache-url", "../cache")
    assert refused.exit_code == 1
    assert "found another model than the one that the run" in refused.output


def test_a_base_that_is_not_found_is_left_out_only_where_the_hub_has_it(
    run_folder: Path, recorded: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path may look as `owner/name` of the hub. The record says which it was; an earlier one does not."""
    record = json.loads((run_folder / "run.json").read_text())
    assert record["student"].pop("from_folder") is True
    name, missing = "bases/mine", str(tmp_path / "nowhere" / "base")
    cases = ((name, True, False), (name, False, True), (name, None, True), (missing, None, False))
    for number, (student, from_folder, is_published) in enumerate(cases):
        said = {} if from_folder is None else {"from_folder": from_folder}
        record["config"]["student"] = student
        (run_folder / "run.json").write_text(json.dumps({**record, "student": {**record["student"], **said}}))
        done = invoke("--publish", run_folder, place / str(number), "--cache-url", "../cache")
        assert done.exit_code == (0 if is_published else 1)
        assert is_published or f"found no folder {student} here, expected the model that the run began" in done.output
        assert (place / str(number)).exists() == is_published
        assert not (place / str(number) / "base").exists()
    record["config"]["student"], record["student"]["from_folder"] = "bases/mine", True
    (run_folder / "run.json").write_text(json.dumps(record))
    shutil.copytree(recorded.parent / "base", tmp_path / "started_here" / "bases" / "mine")
    monkeypatch.chdir(tmp_path / "started_here")
    assert invoke("--publish", run_folder, place / "run", "--cache-url", "../cache").exit_code == 0
    assert (place / "run" / "base" / "config.json").is_file()


def test_a_record_without_digests_is_refused_with_the_remedy(run_folder: Path, place: Path) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    del record["weights"]
    (run_folder / "run.json").write_text(json.dumps(record))
    refused = invoke("--publish", run_folder, place / "run", "--cache-url", "../cache")
    assert "repeat the run with this one: student-train --repeat" in refused.output


def test_another_run_at_the_address_is_refused(recorded: Path, run_folder: Path, place: Path) -> None:
    assert invoke("--publish", recorded, place / "run", "--cache-url", "../cache").exit_code == 0
    record = json.loads((run_folder / "run.json").read_text())
    (run_folder / "run.json").write_text(json.dumps({**record, "command": ["another"]}))
    refused = invoke("--publish", run_folder, place / "run", "--cache-url", "../cache")
    assert refused.exit_code == 1
    assert "found another published run, expected nothing or this one" in refused.output


def test_the_quantised_copy_goes_with_the_run(run_folder: Path, place: Path) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    record["config"]["quantize"] = "int8"
    (run_folder / "run.json").write_text(json.dumps(record))
    (run_folder / "int8").mkdir()
    (run_folder / "int8" / "config.json").write_text("{}")
    (run_folder / "secret.txt").write_text("not of the run")
    assert invoke("--publish", run_folder, place / "run", "--cache-url", "../cache").exit_code == 0
    assert (place / "run" / "int8" / "config.json").read_text() == "{}"
    assert not (place / "run" / "secret.txt").exists()


def test_a_second_run_states_the_noise(recorded: Path, run_folder: Path, place: Path) -> None:
    lines = [json.loads(line) for line in (run_folder / "held_out.jsonl").read_text().splitlines()]
    moved = [{**line, "kl_sum": line["kl_sum"] + 0.25 * line["tokens"]} for line in lines]
    (run_folder / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in moved))
    arguments = ("--publish", recorded, place / "run", "--cache-url", "../cache", "--second-run")
    assert invoke(*arguments, run_folder).exit_code == 0
    noise = read_publication(open_store(place / "run")).noise
    assert noise is not None
    assert noise["margins"]["kl"] == pytest.approx(0.25)
    (run_folder / "held_out.jsonl").unlink()
    assert "found other held-out rows than in" in invoke(*arguments, run_folder).output
    one = json.dumps(lines[0]) + "\n"  # of one document
    for folder in (run_folder, shutil.copytree(run_folder, run_folder.parent / "second")):
        (folder / "held_out.jsonl").write_text(one)
    refused = invoke("--publish", run_folder, place / "one", *arguments[3:], run_folder.parent / "second")
    assert "found one held-out document, expected at least two to measure noise" in refused.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cache-url", "x"], "belong to --publish RUN URL"),
        (["--publish", "a", "b", "--repeat", "c"], "found two things to do, expected one"),
        (["--publish", "nowhere", "b"], "run.json: found no run's record"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    refused = invoke(*arguments)
    assert refused.exit_code == 1
    assert message in refused.output
    assert refused.output.count("\n") == 1


@pytest.mark.slow
def test_a_run_on_the_hub_is_repeated_from_there(
    hub: FakeHub, world: Any, recorded: Path, tmp_path: Path, elsewhere: Path
) -> None:
    cache = hub.create("datasets", "me/cache")
    run = hub.create("models", "me/run")
    publish(shards.open(world.shards), "hf://datasets/me/cache")
    done = invoke("--publish", recorded, "hf://me/run", "--cache-url", "hf://datasets/me/cache")
    assert done.exit_code == 0, done.output
    assert run.commits[1:] == [["README.md"], [PUBLICATION_NAME]]
    assert len(cache.commits) == 3
    front = yaml.safe_load(run.files["README.md"].decode().split("---\n")[1])
    assert front["datasets"] == ["me/cache"]
    repeated = invoke("--repeat", "hf://me/run", "--out", tmp_path / "again")
    assert repeated.exit_code == 0, repeated.output
    assert f"{tmp_path / 'again'}: identical" in repeated.output
    assert any(elsewhere.rglob("*.arrow"))


@pytest.mark.slow
def test_a_run_whose_commit_fails_is_not_there(hub: FakeHub, place: Path, recorded: Path) -> None:
    run = hub.create("models", "me/run")
    hub.create("datasets", "me/cache")
    publish(shards.open(place / "cache"), "hf://datasets/me/cache")
    hub.fault = lambda method, path: 403 if "/commit/" in path else None
    refused = invoke("--publish", recorded, "hf://me/run", "--cache-url", "hf://datasets/me/cache")
    assert refused.exit_code == 1
    assert "check your access to it" in refused.output
    assert run.files == {}

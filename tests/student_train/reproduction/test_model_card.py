"""Tests of the model card of a published run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import shards
from shards.edit.publish import publish
from shards.format.manifest import Teacher
from shards.format.side_files import is_sealed_card
from student_train.reproduction.model_card import CardFacts, model_card
from student_train.reproduction.publication import PublishedCache
from student_train.reproduction.recorded_run import RecordedRun
from tests.shards.fake_hub import validate_card
from tests.student_train.reproduction.conftest import invoke

CACHE = PublishedCache(url="../cache", manifest_sha256="c" * 64)


def card_of(run: RecordedRun, teacher: Teacher, *, address: str = "hf://me/run", url: str = "../cache") -> str:
    return model_card(CardFacts(run=run, caches=[replace(CACHE, url=url)], teachers=[teacher], address=address))


def front_of(card: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


@pytest.fixture
def run(recorded: Path) -> RecordedRun:
    return RecordedRun.read(recorded / "run.json")


@pytest.fixture
def teacher(world: Any) -> Teacher:
    teacher: Teacher = shards.open(world.shards).manifest.teacher
    return replace(teacher, name="codellama-70b", repo="codellama/CodeLlama-70b-hf", licence="llama2")


def test_the_hub_reads_fields_and_measures(run: RecordedRun, teacher: Teacher) -> None:
    from huggingface_hub import ModelCard

    text = card_of(run, teacher, url="hf://datasets/me/cache/part")
    assert validate_card({"content": text, "repoType": "model"})["errors"] == []
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.datasets) == ("transformers", "text-generation", ["me/cache"])
    assert {"distillation", "teacherless"} <= set(data.tags)
    assert data.model_name == "A student of codellama-70b"
    after = run.record["held_out"]["after"]
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {name: round(after[name]["mean"], 6) for name in ("kl", "bits_per_byte", "top1_agreement")}


def test_a_person_reads_how_to_load_and_to_repeat(run: RecordedRun, teacher: Teacher) -> None:
    text = card_of(run, teacher)
    assert "student-train --repeat hf://me/run --out again/" in text
    assert 'AutoModelForCausalLM.from_pretrained("me/run")' in text
    assert "hf://me/cache, manifest cccc" in text
    assert f"sha256 {run.exported}" in text
    after = run.record["held_out"]["after"]["kl"]
    assert f"{after['mean']:.4f} [{after['low']:.4f}, {after['high']:.4f}] |" in text
    assert 'subfolder="x/y"' in card_of(run, teacher, address="hf://me/run/x/y")
    assert "--repeat https://host/run --out" in card_of(run, teacher, address="https://host/run")


def test_licences_that_are_not_one_are_other(run: RecordedRun, teacher: Teacher) -> None:
    of_a_folder = front_of(card_of(run, teacher))  # nobody knows the licence of the student's folder
    assert of_a_folder["license"] == "other"
    assert "base_model" not in of_a_folder
    own = replace(run, record={**run.record, "config": {**run.record["config"], "student": "teacher"}})
    front = front_of(card_of(own, teacher))
    assert (front["license"], front["base_model"]) == ("llama2", "codellama/CodeLlama-70b-hf")
    phi = replace(run, record={**run.record, "config": {**run.record["config"], "student": "phi-2"}})
    front = front_of(card_of(phi, replace(teacher, licence="mit")))
    assert (front["license"], front["base_model"]) == ("mit", "microsoft/phi-2")
    restricted = card_of(own, replace(teacher, restricts_outputs=True))
    assert "Teacher codellama-70b: llama2 - its terms restrict training other models" in restricted


def test_figures_of_one_document_have_no_interval(run: RecordedRun, teacher: Teacher) -> None:
    held_out = run.record["held_out"]
    bare = {when: {name: {"mean": figure["mean"]} for name, figure in held_out[when].items()} for when in
            ("before", "after")}  # fmt: skip
    text = card_of(replace(run, record={**run.record, "held_out": {**held_out, **bare}}), teacher)
    assert "held-out tokens, of one document, which gives no interval:" in text
    assert f"| {bare['before']['kl']['mean']:.4f} | {bare['after']['kl']['mean']:.4f} |" in text


def test_a_run_without_held_out_rows_has_no_measures(run: RecordedRun, teacher: Teacher) -> None:
    bare = replace(run, record={**run.record, "held_out": {"rows": 0, "before": None, "after": None}})
    text = card_of(bare, teacher)
    assert "model-index" not in front_of(text)
    assert "held-out tokens" not in text


def test_a_card_that_was_edited_is_kept(recorded: Path, world: Any, tmp_path: Path) -> None:
    publish(shards.open(world.shards), str(tmp_path / "cache"))
    arguments = ("--publish", recorded, tmp_path / "run", "--cache-url", "../cache")
    assert invoke(*arguments).exit_code == 0
    card = tmp_path / "run" / "README.md"
    assert is_sealed_card(card.read_bytes())
    assert str(tmp_path) not in card.read_text()
    card.write_text(card.read_text().replace("# A student", "# My student"))
    assert "README.md: kept" in invoke(*arguments).output
    assert "# My student" in card.read_text()

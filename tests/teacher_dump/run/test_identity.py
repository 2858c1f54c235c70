"""Tests of the identity of a dump: by content, never by a name or a path of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from shards.edit.publish import publish
from shards.format.schema import canonical_json
from teacher_dump.cli import main
from teacher_dump.model.teachers import resolve
from teacher_dump.run.identity import identity_digest
from tests.teacher_dump.helpers import change_weights, run_small_dump


def sharpen(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2


def test_another_folder_of_the_same_name_is_another_teacher(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    assert run_small_dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    other = Path(shutil.copytree(teacher, tmp_path / "b" / "sharp"))
    assert run_small_dump(other, corpus_folder, tmp_path / "o").exit_code == 0  # the same weights at another place
    change_weights(other, sharpen)
    result = run_small_dump(other, corpus_folder, tmp_path / "o")
    assert result.exit_code == 1
    assert "weights_sha256" in result.output


def test_another_configuration_of_the_same_weights_is_another_teacher(
    teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    assert run_small_dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert run_small_dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    (teacher / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert "config_sha256" in run_small_dump(teacher, corpus_folder, tmp_path / "o").output


@pytest.mark.slow
def test_a_folder_with_the_name_of_a_known_teacher_never_stands_for_it(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    shutil.copytree(teacher, tmp_path / "w" / "codellama-70b")
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it reads the variable when it is imported
    result = CliRunner().invoke(main, ["--model", "codellama-70b", "--fetch"])
    assert result.exit_code == 1
    assert "not on this machine" in result.output
    teacher_of_folder = resolve("./codellama-70b").teacher
    assert (teacher_of_folder.name, teacher_of_folder.repo) == ("codellama-70b", "")


def test_no_file_of_a_cache_names_a_place_of_this_machine(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    config = json.loads((teacher / "tokenizer_config.json").read_text())
    config |= {"name_or_path": str(teacher), "tokenizer_file": str(teacher / "tokenizer.json")}
    (teacher / "tokenizer_config.json").write_text(json.dumps(config))
    mbpp = tmp_path / "mbpp.jsonl"
    mbpp.write_text(json.dumps({"task_id": 1, "text": "w " * 20, "code": "x = 1", "test_list": ["assert x"]}) + "\n")
    assert run_small_dump(teacher, corpus_folder, tmp_path / "o", "--decontaminate", f"mbpp={mbpp}").exit_code == 0
    publish(shards.open(tmp_path / "o"), str(tmp_path / "p"))
    for file in [*(tmp_path / "o").rglob("*"), *(tmp_path / "p").rglob("*")]:
        if file.is_file():
            for place in (tmp_path, corpus_folder.parent):
                assert str(place).encode() not in file.read_bytes(), file
    manifest = shards.open(tmp_path / "o").manifest
    assert manifest.corpus["source"] == corpus_folder.name
    assert manifest.corpus["filters"]["decontaminate"] == "mbpp=mbpp.jsonl"


def test_another_corpus_of_the_same_name_is_refused(teacher: Path, tmp_path: Path) -> None:
    for place, text in (("c1", "x = 1\n" * 30), ("c2", "y = 22\n" * 30)):
        (tmp_path / place / "src").mkdir(parents=True)
        (tmp_path / place / "src" / "a.py").write_text(text)
    out = tmp_path / "o"
    assert run_small_dump(teacher, tmp_path / "c1" / "src", out).exit_code == 0
    result = run_small_dump(teacher, tmp_path / "c2" / "src", out)
    assert result.exit_code == 1
    assert "the files of --data have other names or sizes" in result.output
    shutil.rmtree(tmp_path / "c1")  # what is finished can be used without its corpus
    result = run_small_dump(teacher, tmp_path / "c1" / "src", out)
    assert "already complete" in result.output, result.output


def test_a_plan_of_an_earlier_release_is_continued(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert run_small_dump(teacher, corpus_folder, out, "--prepare").exit_code == 0
    plan = json.loads((out / "plan.json").read_bytes())["identity"]
    old = {k: v for k, v in plan.items() if k not in ("config_sha256", "data_files")} | {"data": str(corpus_folder)}
    shutil.rmtree(out)
    out.mkdir()
    content = canonical_json({"fingerprint": identity_digest(old), "identity": old})
    (out / "plan.json").write_bytes(content)
    result = run_small_dump(teacher, corpus_folder, out)
    assert result.exit_code == 0, result.output
    assert (out / "plan.json").read_bytes() == content
    other = Path(shutil.copytree(corpus_folder, tmp_path / "other"))
    assert "data " in run_small_dump(teacher, other, out).output


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 80, b"[" * 100_000, b'{"fingerprint": "0", "identity": {}}'])
def test_a_damaged_plan_is_written_again_where_the_shards_are_of_the_same_settings(
    damage: bytes, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    assert run_small_dump(teacher, corpus_folder, out).exit_code == 0
    plan = (out / "plan.json").read_bytes()
    (out / "plan.json").write_bytes(damage)
    result = run_small_dump(teacher, corpus_folder, out, "--seed", "1")
    assert result.exit_code == 1
    assert "not a readable plan, and 000000-" in result.output
    result = run_small_dump(teacher, corpus_folder, out)
    assert "already complete" in result.output, result.output
    assert (out / "plan.json").read_bytes() == plan


def test_a_repaired_corpus_is_read_by_the_same_command(teacher: Path, tmp_path: Path) -> None:
    import gzip

    data, raw = tmp_path / "t.jsonl.gz", gzip.compress(json.dumps({"content": "x = 1\n" * 30}).encode())
    data.write_bytes(raw[:-10])
    assert "is truncated" in run_small_dump(teacher, data, tmp_path / "o").output
    data.write_bytes(raw)
    result = run_small_dump(teacher, data, tmp_path / "o")
    assert result.exit_code == 0, result.output
    data.unlink()
    assert "already complete" in run_small_dump(teacher, data, tmp_path / "o").output

"""The identity of a teacher, of a corpus and of a dump: by content, never by a name or a path of one machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import shards
from shards.edit.publish import publish
from shards.errors import ShardError
from shards.format.schema import canonical_json
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.cli import main
from teacher_dump.model.model_folder import load_tokenizer, strip_paths
from teacher_dump.model.teachers import resolve
from teacher_dump.run.identity import identity_digest


@pytest.fixture
def teacher(tiny_teacher: Path, tmp_path: Path) -> Path:
    """Return a copy of the teacher to damage."""
    return Path(shutil.copytree(tiny_teacher, tmp_path / "a" / "sharp"))


def dump(teacher: Path, corpus: Path, out: Path, *more: str) -> Any:
    settings = ["--engine", "transformers", "--max-tokens", "200", "--window-tokens", "48", "--decontaminate", "none"]
    arguments = ["--model", str(teacher), "--data", str(corpus), "--out", str(out), *settings, *more]
    return CliRunner().invoke(main, arguments)


def change_weights(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def sharpen(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2


def refused(teacher: Path, corpus: Path, tmp_path: Path, said: str) -> None:
    done = dump(teacher, corpus, tmp_path / "refused")
    assert done.exit_code == 1, done.output
    assert said in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "refused").exists()


def test_another_folder_of_the_same_name_is_another_teacher(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    assert dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    other = Path(shutil.copytree(teacher, tmp_path / "b" / "sharp"))
    assert dump(other, corpus_folder, tmp_path / "o").exit_code == 0  # the same weights at another place
    change_weights(other, sharpen)
    done = dump(other, corpus_folder, tmp_path / "o")
    assert done.exit_code == 1
    assert "weights_sha256" in done.output


def test_another_configuration_of_the_same_weights_is_another_teacher(
    teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    assert dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert dump(teacher, corpus_folder, tmp_path / "o").exit_code == 0
    (teacher / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert "config_sha256" in dump(teacher, corpus_folder, tmp_path / "o").output


def test_a_folder_with_the_name_of_a_known_teacher_never_stands_for_it(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    shutil.copytree(teacher, tmp_path / "w" / "codellama-70b")
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = CliRunner().invoke(main, ["--model", "codellama-70b", "--fetch"])
    assert done.exit_code == 1
    assert "not on this machine" in done.output
    assert resolve("./codellama-70b").teacher.name == "codellama-70b"
    assert resolve("./codellama-70b").teacher.repo == ""


def test_no_file_of_a_cache_names_a_place_of_this_machine(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    config = json.loads((teacher / "tokenizer_config.json").read_text())
    config |= {"name_or_path": str(teacher), "tokenizer_file": str(teacher / "tokenizer.json")}
    (teacher / "tokenizer_config.json").write_text(json.dumps(config))
    mbpp = tmp_path / "mbpp.jsonl"
    mbpp.write_text(json.dumps({"task_id": 1, "text": "w " * 20, "code": "x = 1", "test_list": ["assert x"]}) + "\n")
    assert dump(teacher, corpus_folder, tmp_path / "o", "--decontaminate", f"mbpp={mbpp}").exit_code == 0
    publish(shards.open(tmp_path / "o"), str(tmp_path / "p"))
    for file in [*(tmp_path / "o").rglob("*"), *(tmp_path / "p").rglob("*")]:
        if file.is_file():
            for place in (tmp_path, corpus_folder.parent):
                assert str(place).encode() not in file.read_bytes(), file
    manifest = shards.open(tmp_path / "o").manifest
    assert manifest.corpus["source"] == corpus_folder.name
    assert manifest.corpus["filters"]["decontaminate"] == "mbpp=mbpp.jsonl"


def test_what_is_no_path_stays_in_a_tokenizers_file() -> None:
    raw = b'{"bos_token": "/", "chat_template": "/x", "name_or_path": "org/name", "model_max_length": 8}'
    assert strip_paths(raw) == raw
    assert json.loads(strip_paths(b'{"vocab_file": "/home/x/v", "eos_token": "e"}')) == {"eos_token": "e"}
    assert strip_paths(b"not json") == b"not json"


def test_another_corpus_of_the_same_name_is_refused(teacher: Path, tmp_path: Path) -> None:
    for place, text in (("c1", "x = 1\n" * 30), ("c2", "y = 22\n" * 30)):
        (tmp_path / place / "src").mkdir(parents=True)
        (tmp_path / place / "src" / "a.py").write_text(text)
    out = tmp_path / "o"
    assert dump(teacher, tmp_path / "c1" / "src", out).exit_code == 0
    done = dump(teacher, tmp_path / "c2" / "src", out)
    assert done.exit_code == 1
    assert "the files of --data have other names or sizes" in done.output
    shutil.rmtree(tmp_path / "c1")  # what is finished can be used without its corpus
    done = dump(teacher, tmp_path / "c1" / "src", out)
    assert "already complete" in done.output, done.output


def test_a_plan_of_an_earlier_release_is_continued(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert dump(teacher, corpus_folder, out, "--prepare").exit_code == 0
    plan = json.loads((out / "plan.json").read_bytes())["identity"]
    old = {k: v for k, v in plan.items() if k not in ("config_sha256", "data_files")} | {"data": str(corpus_folder)}
    shutil.rmtree(out)
    out.mkdir()
    content = canonical_json({"fingerprint": identity_digest(old), "identity": old})
    (out / "plan.json").write_bytes(content)
    done = dump(teacher, corpus_folder, out)
    assert done.exit_code == 0, done.output
    assert (out / "plan.json").read_bytes() == content
    other = Path(shutil.copytree(corpus_folder, tmp_path / "other"))
    assert "data " in dump(teacher, other, out).output


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("BPE", "dropout", 0.1), ("BPE", "dropout", 1e-9), ("Unigram", "alpha", 0.1), ("Unigram", "nbest_size", -1)],
)
def test_a_tokenizer_that_samples_is_refused(
    kind: str, field: str, value: float, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    rules = json.loads((teacher / "tokenizer.json").read_text())
    rules["model"][field] = value
    (teacher / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(ShardError, match=rf"the tokenizer samples \({field} .* expected a function of the text"):
        TokenizerRules.load(teacher).fingerprint()
    if kind == "BPE":
        said = "it samples" if value == 0.1 else "the tokenizer samples"
        refused(teacher, corpus_folder, tmp_path, said)


def test_a_tokenizer_that_samples_without_saying_so_is_found_by_asking_twice(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    class Sampling:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, *_: Any, **__: Any) -> dict[str, list[int]]:
            self.calls += 1
            return {"input_ids": [self.calls // 10]}

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: Sampling())
    with pytest.raises(ShardError, match="other ids for the same text each time"):
        load_tokenizer(teacher)


def cut(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:-1000])


def flip_header(folder: Path) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[8] ^= 0xFF
    (folder / "model.safetensors").write_bytes(raw)


def lose_a_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def put_nan(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.norm.weight"][3] = np.nan

    change_weights(folder, change)


def set_config(**values: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def remote_tokenizer(folder: Path) -> None:
    config = {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "the file is cut"),
        (flip_header, "without a safetensors header"),
        (lose_a_shard, "found no model-00002-of-00002.safetensors, which model.safetensors.index.json lists"),
        (put_nan, "tensor model.norm.weight has 1 values that are NaN"),
        (set_config(vocab_size=300), "ids beyond the 300 of config.json"),
        (set_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "are quantised, and"),
        (set_config(quantization_config={"quant_method": "odd"}), "Unknown quantization type"),
        (set_config(model_type="unheard_of"), "model type `unheard_of`"),
        (set_config(model_type="odd", auto_map={"AutoConfig": "odd.Odd"}), "does not load"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "no readable config.json"),
        (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "found no JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found no *.safetensors"),
    ],
)
def test_a_teacher_that_cannot_be_used_is_one_line_before_anything_is_written(
    damage: Any, said: str, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    damage(teacher)
    refused(teacher, corpus_folder, tmp_path, said)


def test_a_tokenizer_with_code_of_its_own_is_refused_without_asking(
    teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    remote_tokenizer(teacher)
    refused(teacher, corpus_folder, tmp_path, "tokenizer does not load")


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 80, b"[" * 100_000, b'{"fingerprint": "0", "identity": {}}'])
def test_a_damaged_plan_is_written_again_where_the_shards_are_of_the_same_settings(
    damage: bytes, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    assert dump(teacher, corpus_folder, out).exit_code == 0
    plan = (out / "plan.json").read_bytes()
    (out / "plan.json").write_bytes(damage)
    done = dump(teacher, corpus_folder, out, "--seed", "1")
    assert done.exit_code == 1
    assert "not a readable plan, and 000000-" in done.output
    done = dump(teacher, corpus_folder, out)
    assert "already complete" in done.output, done.output
    assert (out / "plan.json").read_bytes() == plan


def test_a_corpus_that_was_mended_is_read_by_the_same_command(teacher: Path, tmp_path: Path) -> None:
    import gzip

    data, raw = tmp_path / "t.jsonl.gz", gzip.compress(json.dumps({"content": "x = 1\n" * 30}).encode())
    data.write_bytes(raw[:-10])
    assert "is truncated" in dump(teacher, data, tmp_path / "o").output
    data.write_bytes(raw)
    done = dump(teacher, data, tmp_path / "o")
    assert done.exit_code == 0, done.output
    data.unlink()
    assert "already complete" in dump(teacher, data, tmp_path / "o").output

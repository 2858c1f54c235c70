"""Tests of the data card of a published cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

import shards
from shards.cli import main


def test_the_card_lets_load_dataset_work_and_names_the_terms(cache_folder: Path, tmp_path: Path) -> None:
    import datasets
    import yaml

    manifest = shards.open(cache_folder).manifest
    teacher = replace(manifest.teacher, name="codellama-70b", licence="llama2", restricts_outputs=True)
    (cache_folder / "manifest.json").write_bytes(replace(manifest, teacher=teacher).to_bytes())
    result = CliRunner().invoke(main, ["publish", str(cache_folder), str(tmp_path / "pub")])
    assert "llama2 - its terms restrict training other models on its outputs" in result.output
    card = (tmp_path / "pub" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == ["llama2", "mit"]
    assert front["size_categories"] == ["n<1K"]
    assert "its terms restrict" in card
    assert "| MIT | 12 |" in card
    assert str(tmp_path) not in card
    data = datasets.load_dataset(str(tmp_path / "pub"), split="train", cache_dir=str(tmp_path / "hf"))
    assert data.num_rows == 12

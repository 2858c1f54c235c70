"""Tests of the check of a whole cache."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

import shards
from shards.cli import main
from shards.verify import verify


def test_a_sound_cache_has_no_problems(cache_folder: Path) -> None:
    assert verify(shards.open(cache_folder)) == []


def test_the_plan_says_what_to_have_again(cache_folder: Path) -> None:
    run = CliRunner()
    plan = json.loads(run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"]).stdout)
    assert plan["sound"]
    assert plan["again"] == []
    (cache_folder / "000000.arrow").unlink()
    (cache_folder / "tokenizer" / "tokenizer.json").write_text("{}")
    result = run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"])
    assert result.exit_code == 1
    plan = json.loads(result.stdout)
    assert {(a["name"], a["kind"]) for a in plan["again"]} == {
        ("000000.arrow", "shard"),
        ("tokenizer/tokenizer.json", "file"),
    }
    words = run.invoke(main, ["verify", str(cache_folder), "--fix-plan"]).stdout
    assert "again: 000000.arrow" in words
    (cache_folder / "manifest.json").write_text("{}")
    result = run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"])
    assert result.exit_code == 1

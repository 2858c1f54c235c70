"""Tests of the facts about a cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

import shards
from shards.cli import main
from shards.reports.statistics import measure


def test_responses_are_summarised_with_their_writer(response_folder: Path) -> None:
    cache = shards.open(response_folder)
    run = CliRunner()
    manifest = replace(cache.manifest, report=measure(cache))
    (response_folder / "manifest.json").write_bytes(manifest.to_bytes())
    contexts = sum(int(chunk.contexts.sum()) for chunk in cache)
    assert manifest.report["context_tokens"] == contexts
    assert manifest.report["positions"] == cache.tokens - contexts
    shown = run.invoke(main, ["inspect", str(response_folder)]).output
    assert f"{manifest.report['documents']} prompts" in shown
    assert "student step 100 (weights 111111111111), temperature 0.8, top-p 0.95, at most 64 tokens, seed 0" in shown
    assert f"{contexts:,} of context, {cache.tokens - contexts:,} of responses" in shown
    facts = json.loads(run.invoke(main, ["inspect", str(response_folder), "--json"]).output)
    assert (facts["version"], facts["writer"]["seed"]) == (2, 0)
    (response_folder / "manifest.json").write_bytes(replace(manifest, writer=None).to_bytes())
    assert "the responses are those of the corpus" in run.invoke(main, ["inspect", str(response_folder)]).output


def test_documents_have_neither_writer_nor_context(cache_folder: Path) -> None:
    facts = json.loads(CliRunner().invoke(main, ["inspect", str(cache_folder), "--json"]).output)
    assert (facts["version"], facts["writer"]) == (1, None)
    assert "context_tokens" not in measure(shards.open(cache_folder))


def test_a_cache_without_a_report_is_still_inspected(cache_folder: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(cache_folder)])
    assert result.exit_code == 0
    assert "not yet: teacher-dump --check N" in result.output

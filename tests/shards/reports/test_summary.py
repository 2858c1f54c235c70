"""Tests of the facts about a cache."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from shards.cli import main


def test_a_cache_without_a_report_is_still_inspected(cache_folder: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(cache_folder)])
    assert result.exit_code == 0
    assert "not yet: teacher-dump --check N" in result.output

"""Tests of the picture of a cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from tests.shards.reports.conftest import checked


@pytest.mark.parametrize("ending", ["svg", pytest.param("png", marks=pytest.mark.slow)])
def test_a_picture_is_drawn_with_and_without_a_check(reported: shards.Cache, tmp_path: Path, ending: str) -> None:
    folder, path = reported.store.base, tmp_path / f"picture.{ending}"
    result = CliRunner().invoke(main, ["inspect", folder, "--picture", str(path)])
    assert result.exit_code == 0, result.output
    small = path.read_bytes()
    (Path(folder) / "check.json").write_text(json.dumps(checked(reported)))
    assert CliRunner().invoke(main, ["inspect", folder, "--picture", str(path)]).exit_code == 0
    assert len(path.read_bytes()) > len(small)
    if ending == "svg":
        text = path.read_text()
        assert "c = 0.05 (this cache)" in text
        assert "Where the bytes go" in text


def test_another_ending_is_refused(reported: shards.Cache, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", reported.store.base, "--picture", str(tmp_path / "p.txt")])
    assert result.exit_code == 1
    assert "found the ending '.txt', expected .svg or .png" in result.output
    result = CliRunner().invoke(main, ["inspect", reported.store.base, "--row", "0", "--picture", "p.svg"])
    assert result.exit_code == 2
    assert "give one of them" in result.output

"""Tests of the report in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shards
from shards.reports.fidelity import check_table, read_check, report_lines
from tests.shards.reports.conftest import checked


def test_a_check_is_shown_only_beside_its_own_manifest(reported: shards.Cache) -> None:
    assert read_check(reported) is None
    path = Path(reported.store.base) / "check.json"
    path.write_text(json.dumps(checked(reported)))
    assert read_check(reported) == checked(reported)
    said = dict(report_lines(reported.manifest.report, read_check(reported)))
    assert "nothing is off by more than rounding and noise" in said["checked"]
    path.write_text(json.dumps({**checked(reported), "manifest_sha256": "ab" * 32}))
    assert "of another cache (manifest abababababab)" in dict(report_lines({}, read_check(reported)))["checked"]
    path.write_text("{")
    with pytest.raises(shards.ShardError, match="no result of a check"):
        read_check(reported)


def test_the_table_has_a_line_for_every_value(reported: shards.Cache) -> None:
    found = checked(reported)
    shown = check_table(found).splitlines()
    assert [line.split("  ")[0] for line in shown[1:]] == list(found["stored"])
    assert len({len(line) for line in shown}) == 1

"""Tests of the command logit-shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main


def _damage(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_inspect_says_what_is_there_and_verify_says_whether_it_is_sound(cache_folder: Path) -> None:
    run = CliRunner()
    result = run.invoke(main, ["inspect", str(cache_folder), "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.output)
    cache = shards.open(cache_folder)
    assert facts["tokens"] == cache.tokens
    assert facts["rows"] == cache.rows
    assert facts["bytes_on_disk"] == cache.bytes_on_disk
    assert facts["bytes_per_token"] == pytest.approx(cache.bytes_per_token, abs=1e-3)
    assert facts["manifest_sha256"] == cache.manifest_sha256
    assert facts["rows_sha256"] == cache.manifest.rows_sha256
    assert "test/teacher" in run.invoke(main, ["inspect", str(cache_folder)]).output
    assert run.invoke(main, ["verify", str(cache_folder)]).exit_code == 0

    file = cache_folder / "000000.arrow"
    file.write_bytes(_damage(file.read_bytes(), 8000))
    result = run.invoke(main, ["verify", str(cache_folder)])
    assert result.exit_code == 1
    assert "000000.arrow" in result.output
    result = run.invoke(main, ["inspect", str(cache_folder / "nothing")])
    assert result.exit_code == 1
    assert "error: " in result.output
    assert "Traceback" not in result.output

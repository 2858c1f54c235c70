"""Tests of the spot check at the end of a dump."""

from __future__ import annotations

import json
from pathlib import Path

import shards
from tests.teacher_dump.helpers import run_command


def test_a_dump_ends_with_its_report_and_its_engines_noise(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--model", str(tiny_teacher), "--data", str(corpus_folder), "--out", str(tmp_path / "o")]
    result = run_command(*arguments, "--engine", "transformers", "--max-tokens", "300", "--window-tokens", "48")
    assert result.exit_code == 0, result.output
    for message in ("% of the teacher's mass has its id stored", "KL lost", "two runs of transformers", "--check N"):
        assert message in result.output
    found = json.loads((tmp_path / "o" / "check.json").read_bytes())
    assert found["manifest_sha256"] == shards.open(tmp_path / "o").manifest_sha256
    assert found["rows"] == 1
    assert found["noise"]["draws"]["agree"] == 1
    assert "stored" not in found

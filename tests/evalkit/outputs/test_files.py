"""Tests of atomic writing, with devices and links."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evalkit.commands import ENVIRONMENT, RIGHT, call, write_lines


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


def test_a_device_is_written_to_and_not_replaced(samples: Path):
    command = [sys.executable, "-m", "evalkit", "score", "--samples", samples, "--json", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[: done.stdout.index("\n}") + 2])["scores"]["humaneval"]["pass@1"] == 1
    assert Path("/dev/stdout").is_symlink()
    assert call("score", "--samples", samples, "--json", "/dev/null", "--no-html").exit_code == 0
    assert not Path("/dev/null").is_file()
    assert not Path("/dev/null.html").exists()


def test_a_result_that_is_a_link_is_written_where_it_leads(tmp_path: Path, samples: Path):
    (tmp_path / "r.json").symlink_to(tmp_path / "real.json")
    assert call("score", "--samples", samples, "--json", tmp_path / "r.json").exit_code == 0
    assert (tmp_path / "r.json").is_symlink()
    assert "scores" in json.loads((tmp_path / "real.json").read_text())

"""Tests of text that cannot be displayed: in verdicts, pages and file names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.sandbox.verdict import Verdict
from tests.evalkit.commands import ENVIRONMENT, RIGHT, call, write_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("    return '\ud800'\n", r"\ud800"),
        ("    return x + y  # \x00\n", r"\x00"),
        ("    raise ValueError('\\x1b[31m red')  # \x1b[2J\n", r"\x1b[2J"),
        ("    return x + y  # \u202e gnp\n", r"\u202e"),
    ],
    ids=["surrogate", "NUL", "escape", "bidirectional"],
)
def test_text_that_cannot_be_displayed_gets_a_verdict_and_a_page(tmp_path: Path, text: str, shown: str):
    path = write_lines(tmp_path / "s.jsonl", {"task_id": "HumanEval/53", "completion": text})
    for _ in range(2):  # the second time from the cache
        done = call("score", "--samples", path, "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert shown in page
    assert not any(ord(char) < 32 and char not in "\n\t" for char in page)
    (verdict,) = json.loads((tmp_path / "r.json").read_text())["tasks"]["HumanEval/53"]
    assert "\x1b" not in verdict["detail"]
    assert "\n" not in verdict["detail"]


def test_a_detail_is_one_line_whatever_was_raised():
    assert Verdict(outcome="exception", detail="ValueError: a\nb\r\x1b[0m\u2028c\n").detail == (
        r"ValueError: a\nb\r\x1b[0m\u2028c"
    )


@pytest.mark.slow
def test_undecodable_file_names_are_displayed_escaped(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.jsonl"))
    path.write_text(json.dumps(RIGHT))
    command = [sys.executable, "-m", "evalkit", "score", "--samples", path]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert r"\udcff\x1b[31m-evalkit/score.json" in done.stdout
    command[-1] = Path(f"{path}x")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert r"\udcff\x1b[31m.jsonlx: no such file" in done.stderr

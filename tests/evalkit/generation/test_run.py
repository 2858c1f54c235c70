"""Tests of generated samples: what a protocol makes of an answer, and what identifies a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.generation import run_digest
from evalkit.tasks import protocols, registry
from tests.evalkit.commands import call
from tests.evalkit.generation.fake_engine import FixedAnswerEngine


def test_a_continuation_is_a_program_together_with_its_prompt(
    tmp_path: Path, checkpoint: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
):
    problem = registry.load("mbpp:validation", data_dir=shared_data).problems[0]
    body = problem.reference.partition(":")[2].strip("\r\n").expandtabs()
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine(body))
    args = ("--tasks", "mbpp:validation", "--limit", 1, "--n", 1, "--data-dir", shared_data, "--no-html")
    done = call("score", checkpoint, *args, "--json", tmp_path / "score.json")
    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "score.samples.jsonl").read_text().splitlines()
    sample = json.loads(line)
    assert sample["solution"] == sample["prompt"] + body
    assert "completion" not in sample
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["protocol"]["mbpp:validation"]["visible_tests"] is False
    assert result["scores"]["mbpp:validation"]["pass@1"] == 1


def test_samples_of_earlier_versions_keep_their_run():
    """What a later version adds to a protocol and what decides nothing is not part of a run's digest."""
    protocol = protocols.find("humaneval-openai-v1", task="humaneval")
    assert set(run_digest.recorded(protocol)) == {
        "name", "tasks", "source", "prompt", "answer", "first_id", "last_id", "stop", "max_new_tokens", "temperature",
        "top_p", "num_samples",
    }  # fmt: skip

"""Tests of the page of an evaluation by student-train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evalkit.cli import main

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6}


def record(*, models: int = 1) -> dict[str, Any]:
    """Return a result with one row of three tokens."""
    entry = {
        "source": "quantised <b>",
        "parameters": 1234,
        "tokenizer": "the teacher's",
        "left_out": {},
        "measures": {"kl": INTERVAL, "bits_per_byte": INTERVAL, "unheard_of": INTERVAL},
        "kinds": {"name": {**INTERVAL, "tokens": 2}, "space": {"mean": -0.1, "low": -0.2, "high": 0.1, "tokens": 1}},
    }
    row = {
        "document": "d" * 64,
        "window": 3,
        "source": "s",
        "path": "a/<i>.py",
        "unit": "nats per token",
        "values": [0.5] * models,
        "pieces": ["<script>", " x", "\x1b"],
        "piece_kl": [[2.5, 0.0, -0.1], [0.5, 1.0, -0.1]][:models],
    }
    found: dict[str, Any] = {
        "format": 1,
        "shards": {"teacher": {"name": "big"}},
        "chosen": {"rows": "held-out", "held_out": 0.05},
        "on": {"rows": 1, "documents": 1, "tokens": 3, "bytes": 12},
        "models": [entry] * models,
        "furthest": [row],
        "hardware": {"machine": "m", "dtype": "float32", "dtype_why": "as given"},
        "command": ["student-train", "--evaluate", "x"],
    }
    if models == 2:
        found |= {"differences": {"kl": INTERVAL}, "kinds_differences": {"name": INTERVAL}}
    return found


def draw(tmp_path: Path, content: object, *more: str) -> tuple[Result, Path]:
    result, page = tmp_path / "e.json", tmp_path / "e.html"
    result.write_text(json.dumps(content))
    return CliRunner().invoke(main, ["report", str(result), "--out", str(page), *more]), page


@pytest.mark.parametrize("models", [1, 2])
def test_the_page_has_measures_kinds_and_rows_and_is_safe(tmp_path: Path, models: int) -> None:
    done, page = draw(tmp_path, record(models=models))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "quantised &lt;b&gt;" in text
    assert "KL to teacher, nats/token" in text
    assert "unheard_of" in text
    assert "http" not in text
    assert text.count('<div class="bar') == 2 * models
    assert ("1 minus 2" in text) == (models == 2)


def test_the_colour_of_a_token_is_its_kl_or_the_difference(tmp_path: Path) -> None:
    text = draw(tmp_path, record())[1].read_text()
    assert '<span title="2.50 nats" style="background: rgba(var(--more), 1.0)">&lt;script&gt;</span>' in text
    assert '<span title="0.00 nats"> x</span>' in text
    text = draw(tmp_path, record(models=2))[1].read_text()
    assert 'title="2.50, 0.50 nats" style="background: rgba(var(--more), 1.0)"' in text
    assert 'title="0.00, 1.00 nats" style="background: rgba(var(--less), 0.5)"' in text
    assert "The full colour is 2.00 nats or more" in text


@pytest.mark.parametrize(("models", "unit"), [(1, "nats per aligned span"), (2, "bits per byte")])
def test_rows_without_a_kl_by_token_have_no_colour(tmp_path: Path, models: int, unit: str) -> None:
    content = record(models=models)
    content["furthest"][0] |= {"unit": unit, "piece_kl": []}
    text = draw(tmp_path, content)[1].read_text()
    assert "<span>&lt;script&gt; x" in text
    assert f"0.5000 {unit}</small>" in text
    assert ("only their distance from the text compares" in text) == (models == 2)
    assert "The full colour" not in text


@pytest.mark.parametrize(
    "content", [[], {"format": 1}, {"format": 2, "models": []}, {**record(), "on": 3}, {**record(), "models": [{}]}]
)
def test_a_file_of_another_form_is_one_line(tmp_path: Path, content: object) -> None:
    done, page = draw(tmp_path, content)
    assert done.exit_code == 1
    assert "student-train --evaluate" in done.stderr
    assert "Traceback" not in done.stderr
    assert not page.exists()


def test_options_of_a_training_report_are_refused(tmp_path: Path) -> None:
    done, _ = draw(tmp_path, record(), "--markdown", str(tmp_path / "m.md"))
    assert done.exit_code == 1
    assert "takes neither --score nor --markdown" in done.stderr

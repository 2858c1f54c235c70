"""Tests of the page that compares results."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from evalkit.cli import main


def result(path: Path, solved: range, *, tasks: int = 100, **changes) -> Path:
    value = {
        "checkpoint": {"source": path.stem},
        "samples": None,
        "protocol": {"humaneval": {"name": "p-v1"}},
        "data": {"humaneval": {"sha256": "a" * 64, "id_prefix": "HumanEval/"}},
        "scores": {"humaneval": {}},
        "tasks": {f"HumanEval/{task}": [{"passed": task in solved}] for task in range(tasks)},
    }
    path.write_text(json.dumps(value | changes))
    return path


def test_a_page_holds_several_runs_side_by_side_safely(tmp_path: Path):
    interval = {"pass@1": {"mean": 0.6, "low": 0.5, "high": 0.7}}
    first = result(
        tmp_path / "a.json", range(60), scores={"humaneval": {"interval": interval, "solved": 60, "problems": 100}}
    )
    worse = result(tmp_path / "b.json", range(40), checkpoint={"source": "<script>x</script>"})
    elsewhere = result(tmp_path / "c.json", range(60), scores={"mbpp": {}})
    half = result(tmp_path / "d.json", range(60), tasks=50)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["compare", *map(str, (first, worse, elsewhere, half)), "--html", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text
    assert "A is better" in text
    assert "60.0%" in text
    assert "only where the results differ (20 of 100)" in text
    assert text.count('<tr class="same">') == 80
    assert text.count('<td class="cell none">') == 100 + 50  # no HumanEval in the third, half of it in the fourth
    assert "http" not in text.replace("http-equiv", "")

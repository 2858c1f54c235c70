"""Does the report say what was measured, and name what is missing?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folder import write_run

from evalkit.errors import EvalError
from evalkit.pictures import curves
from evalkit.report import as_markdown, build, write


def rows(run: Path, scores: list[Path] | None = None) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in build([run], scores=scores or []).sections[0].rows}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run", kl=0.8)
    write_run(folder / "control", objective="sft", kl=1.1, seed=5)
    return folder


def test_the_paired_difference_is_that_of_the_documents(run: Path):
    before, distilled, control, difference = rows(run)["held-out KL to teacher, nats/token"]
    assert (before, distilled, control) == ("2.900 [2.700, 3.100]", "0.800 [0.750, 0.850]", "1.100 [1.050, 1.150]")
    mean, low, high = (float(part.strip("[],")) for part in difference.split())
    assert low < mean < high < 0
    assert mean == pytest.approx(-0.3, abs=0.03)


def test_without_a_control_nothing_is_compared(tmp_path: Path):
    section = build([write_run(tmp_path / "run")], scores=[]).sections[0]
    assert any("no control run" in remark for remark in section.remarks)
    assert section.rows[1][3:] == ("-", "")


def test_runs_on_other_held_out_rows_are_not_paired(run: Path):
    lines = (run / "control" / "held_out.jsonl").read_text().splitlines()
    (run / "control" / "held_out.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    section = build([run], scores=[]).sections[0]
    assert any("not measured on the same held-out rows" in remark for remark in section.remarks)
    assert section.rows[1][4] == ""


def test_missing_keys_are_named_and_not_made_up(tmp_path: Path):
    folder = tmp_path / "run"
    write_run(folder, held_out={"after": {"kl": {"mean": 0.5}}}, shards={}, train={}, student={})
    (folder / "metrics.jsonl").unlink()
    (folder / "held_out.jsonl").unlink()
    report = build([folder], scores=[])
    text = as_markdown(report)
    assert "holds no bits_per_byte" in text
    assert "not recorded" in text
    write(report, out=tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "is not JSON"),
        ("run.json", '{"format": 9}', "format 9, expected 1"),
        ("metrics.jsonl", '{"step": 1, "loss": 2}\n{"step"\n', "metrics.jsonl line 2"),
        ("held_out.jsonl", '{"document": "a"}\n', "held_out.jsonl line 1: lacks window, tokens, bytes"),
    ],
)
def test_broken_files_are_named(run: Path, name: str, text: str, message: str):
    (run / name).write_text(text)
    with pytest.raises(EvalError, match=message):
        build([run], scores=[])


def test_a_score_is_matched_to_the_checkpoint_that_it_names(run: Path, tmp_path: Path):
    for number, folder in enumerate((run / "control", run)):
        score = {
            "checkpoint": {"source": str(folder)},
            "limit": None,
            "scores": {
                "humaneval": {
                    "pass@1": 0.1 * number,
                    "interval": {"pass@1": {"mean": 0.1 * number, "low": 0.0, "high": 0.2}},
                    "problems": 10,
                    "solved": number,
                }
            },
            "tasks": {f"HumanEval/{task}": [{"passed": task < number}] for task in range(10)},
        }
        (tmp_path / f"{number}.json").write_text(json.dumps(score))
    cells = rows(run, [tmp_path / "0.json", tmp_path / "1.json"])["HumanEval pass@1, %"]
    assert cells == ("-", "10.0 [0.0, 20.0]", "0.0 [0.0, 20.0]", "+10.0 [+0.0, +30.0]")


def test_a_file_that_is_no_score_is_named(run: Path, tmp_path: Path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(EvalError, match="holds no scores"):
        build([run], scores=[tmp_path / "x.json"])


def test_the_same_run_gives_the_same_picture(run: Path):
    section = build([run], scores=[]).sections[0]
    picture = curves(section.run, section.control)
    assert picture == curves(section.run, section.control)
    assert picture.startswith("<svg")
    assert "<script" not in picture

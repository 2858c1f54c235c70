"""Tests of the tables and the page of the distillation report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from evalkit.console import print_report
from evalkit.errors import EvalError
from evalkit.reports.training.distillation import build
from evalkit.reports.training.distillation_page import as_markdown, write
from evalkit.reports.training.plots import training_plots
from tests.evalkit.run_folder import write_cross_tokenizer_run, write_run, write_score


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_run_gives_the_same_picture(run: Path):
    section = build([run], scores=[]).sections[0]
    plots = training_plots(section.run, section.control)
    assert plots == training_plots(section.run, section.control)
    assert len(plots) == 4  # two training curves, two held-out measures
    assert all(plot.startswith("<svg") and "<script" not in plot for plot in plots)


def write_completions(
    folder: Path, texts: dict[str, list[str]], prompts: tuple[str, ...] = ("def f(x):\n", "a <")
) -> None:
    record = {"format": 1, "prompts": list(prompts), "max_new_tokens": 8, "completions": texts}
    (folder / "completions.json").write_text(json.dumps(record))


def page_of(run: Path, tmp_path: Path) -> str:
    write(build([run], scores=[]), out=tmp_path / "r.html")
    return (tmp_path / "r.html").read_text()


def test_completions_stand_side_by_side_and_escaped(run: Path, tmp_path: Path):
    write_completions(run, {"teacher": ["T1", "T2"], "student": ["<script>alert(1)</script>", "a\x1b[31m&\ud800"]})
    write_completions(run / "control", {"student": ["C1", "C2"]})
    first, second = build([run], scores=[]).sections[0].completions
    assert first.texts == (("teacher", "T1"), ("distilled", "<script>alert(1)</script>"), ("control", "C1"))
    assert second.texts[1] == ("distilled", "a\\x1b[31m&\\ud800")
    page = page_of(run, tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.index("T1") < page.index("alert(1)") < page.index("C1") < page.index("T2")
    assert "not shown" not in page


def test_a_model_without_completions_is_named_and_its_column_left_out(run: Path, tmp_path: Path):
    write_completions(run, {"student": ["S1", "S2"]})
    assert [name for name, _ in build([run], scores=[]).sections[0].completions[0].texts] == ["distilled"]
    page = page_of(run, tmp_path)
    assert "teacher: not shown, as its weights were not loaded for training; control: its folder holds no" in page


def test_completions_of_other_prompts_are_not_put_beside_each_other(run: Path):
    write_completions(run, {"student": ["S1", "S2"]})
    write_completions(run / "control", {"student": ["C1", "C2"]}, prompts=("def f(x):\n", "other"))
    first, second = build([run], scores=[]).sections[0].completions
    assert [name for name, _ in first.texts] == ["distilled", "control"]
    assert [name for name, _ in second.texts] == ["distilled"]


def test_the_next_steps_are_commands_that_the_tools_take(tmp_path: Path):
    """A name that a shell would split is quoted."""
    folder = write_run(tmp_path / "my run", config={"shards": "my shards/"})
    steps = build([folder], scores=[]).sections[0].next_steps
    lines = [shlex.split(command) for _, step in steps for command in step.split(" && ")]
    assert [name for name, *_ in lines] == ["logit-shards", "student-train", "evalkit", "evalkit", "teacher-dump"]
    assert lines[0][2] == "my shards/"
    assert lines[1][2] == str(folder)


def test_without_completions_there_is_no_such_section(run: Path, tmp_path: Path):
    assert "Sample completions" not in page_of(run, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no completions"),
        ('{"format": 2}', "format 2, expected 1"),
        ('{"format": 1, "prompts": ["a"], "completions": {"student": []}}', "holds no completions"),
    ],
)
def test_a_broken_file_of_completions_is_named(run: Path, text: str, message: str):
    (run / "completions.json").write_text(text)
    with pytest.raises(EvalError, match=message):
        build([run], scores=[])


def test_the_paired_difference_of_agreement_is_shown(run: Path):
    for folder, rate in ((run, 0.7), (run / "control", 0.6)):
        lines = [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]
        text = "".join(json.dumps({**line, "top1_sum": round(rate * line["tokens"])}) + "\n" for line in lines)
        (folder / "held_out.jsonl").write_text(text)
    *_, difference = rows(run)["held-out top-1 agreement with teacher"]
    assert difference == "+0.100 [+0.100, +0.100]"


def test_the_table_fits_a_terminal_of_80_columns(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    print_report(build([run], scores=[]), Path("demo/report.html"))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    # An interval is never broken: each bracket closes on its line.
    assert all(line.count("[") == line.count("]") for line in lines)
    assert any("[2.700, 3.100]" in line and "[0.750, 0.850]" in line and "[1.050, 1.150]" in line for line in lines)


def test_every_benchmark_and_metric_of_the_scores_has_a_row(run: Path, tmp_path: Path):
    ours = [[True, False], [True, True], [False, False], [False, True]]
    theirs = [[False, False], [True, False], [False, False], [False, False]]
    scores = [
        write_score(tmp_path / "he.json", run, humaneval=[[True], [False]]),
        write_score(tmp_path / "mbpp.json", run, mbpp=ours),
        write_score(tmp_path / "control.json", run / "control", mbpp=theirs),
    ]
    table = rows(run, scores)
    assert table["HumanEval pass@1, %"] == ("-", "50.0 [40.0, 60.0]", "not scored", "")
    mean, low, high = (float(part.strip("[],")) for part in table["MBPP pass@1, %"][3].split())
    assert mean == 37.5  # the shares are 1/2, 1, 0, 1/2 and 0, 1/2, 0, 0
    assert low < mean < high
    assert table["MBPP pass@2, %"][1:3] == ("75.0 [65.0, 85.0]", "25.0 [15.0, 35.0]")
    assert table["MBPP pass@2, %"][3].startswith("+50.0 [")


def test_a_run_across_tokenizers_shows_its_own_measures(tmp_path: Path):
    folder = write_cross_tokenizer_run(tmp_path / "run", kl=0.8)
    write_cross_tokenizer_run(folder / "control", kl=1.1, seed=5, objective="sft")
    report = build([folder], scores=[])
    table = {row[0]: row[1:] for row in report.sections[0].rows}
    labels = [
        "held-out KL of spans, nats/span",
        "held-out KL of prefix cells, nats/boundary",
        "held-out bits per byte",
        "held-out top-1 agreement with teacher",
        "held-out calibration error (ECE)",
    ]
    assert [label for label in table if label.startswith("held-out")] == labels
    before, after, control, difference = table[labels[0]]
    assert (before, after, control) == ("2.000 [1.950, 2.050]", "0.800 [0.750, 0.850]", "1.100 [1.050, 1.150]")
    assert difference.startswith("-0.30")
    assert table[labels[1]][3] == "-0.150 [-0.150, -0.150]"
    assert table[labels[3]][3] == "+0.000 [+0.000, +0.000]"  # over boundaries, not over tokens
    assert table[labels[4]][1:] == ("0.080 [0.070, 0.090]", "0.080 [0.070, 0.090]", "")
    assert not any("not shown" in remark for remark in report.sections[0].remarks)
    write(report, out=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert all(f">{label}</td>" in page for label in labels)
    assert page.count("held-out KL of prefix cells, nats/boundary") == 2  # in the table and above its plot


def test_a_measure_that_the_report_does_not_know_is_shown_under_its_own_name(tmp_path: Path):
    held_out = {"after": {"kl": {"mean": 0.5}, "hidden_state_distance": {"mean": 0.25}}}
    table = rows(write_run(tmp_path / "run", held_out=held_out))
    assert table["held-out hidden state distance"] == ("-", "0.250", "-", "")


def test_the_page_says_where_the_bytes_go(tmp_path: Path):
    folder = write_run(tmp_path / "run", shards={"bytes_by_field": {"head ids": 4.0, "draws": 11.4}})
    report = build([folder], scores=[])
    assert report.sections[0].sizes == (("draws", 11.4), ("head ids", 4.0))
    write(report, out=tmp_path / "report.html")
    assert (
        '<dt>head ids</dt><dd><div style="width: 35.1%"></div></dd><dd>4.0</dd>'
        in (tmp_path / "report.html").read_text()
    )
    assert build([write_run(tmp_path / "older")], scores=[]).sections[0].sizes == ()

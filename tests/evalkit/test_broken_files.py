"""Broken samples, checkpoints, results and run folders give a one-line error.

No counterpart: the readers of many modules.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.evalkit.commands import RIGHT, call, write_lines
from tests.evalkit.run_folder import write_run


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


def deep(depth: int) -> str:
    return '{"task_id": "HumanEval/53", "completion": ' + "[" * depth + "]" * depth + "}\n"


def damaged() -> bytes:
    whole = bytearray(gzip.compress(json.dumps(RIGHT).encode() * 50, mtime=0))
    whole[30] ^= 0xFF
    whole[40] ^= 0xFF
    return bytes(whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.jsonl.gz", gzip.compress(json.dumps(RIGHT).encode() * 99, mtime=0)[:-20], "line 1: is cut short"),
        ("s.jsonl", gzip.compress((json.dumps(RIGHT) + "\n").encode(), mtime=0)[:-8], "line 2: is cut short"),
        ("s.jsonl.gz", damaged(), "its gzip stream is damaged"),
        ("s.jsonl.gz", b"\x1f\x8b\x08\x00garbage", "s.jsonl.gz line 1: "),
        ("s.jsonl", deep(100_000).encode(), "line 1: is nested too deeply"),
        ("s.jsonl", (json.dumps(RIGHT) + "\n" + deep(100_000)).encode(), "line 2: is nested too deeply"),
        ("s.jsonl", b"[" * 100_000, "is nested too deeply"),
        ("s.jsonl", b'{"task_id": ' + b"9" * 5000 + b"}", "line 1: is not JSON"),
        ("s.jsonl", json.dumps(RIGHT).encode() + b"\n\xff\xfe", "line 2: is not UTF-8"),
        ("s.json", b'[{"task_id": "HumanEval/53", "completion": "x"}, 3]', "item 2: has no task_id"),
        ("s.json", b'[{"task_id": "HumanEval/53"', "is not JSON"),
        ("s.json", b"[]", "holds no sample"),
        ("s.jsonl", json.dumps({"task_id": "y" * 100_000, "completion": ""}).encode(), "is not of humaneval"),
    ],
)
@pytest.mark.slow
def test_broken_samples_are_one_line_with_file_and_line(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    done = call("score", "--samples", tmp_path / name)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"evalkit: {tmp_path / name}")
    assert message in line
    assert len(line) < 700
    assert not (tmp_path / "s-evalkit" / "score.json").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": []}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 3}}'),
        ("model.safetensors.index.json", "[" * 100_000),
        ("config.json", "[" * 100_000),
        ("config.json", "[]"),
        ("config.json", "\x00"),
    ],
)
def test_broken_files_of_a_checkpoint_are_one_line(tmp_path: Path, name: str, text: str):
    for part in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / part).write_text('{"model_type": "llama"}')
    (tmp_path / name).write_text(text)
    done = call("score", tmp_path)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert name in line


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"humaneval": 3}},
        {"scores": {"humaneval": {"interval": []}}},
        {"scores": {"humaneval": {"interval": {"pass@1": 3}}}},
        {"scores": []},
        {"tasks": []},
        {"data": 3},
        {"protocol": []},
        {"tasks": {"HumanEval/53": 3}},
        {"tasks": {"HumanEval/53": [3]}},
        {"tasks": {"HumanEval/53": [{}]}},
        {"data": {}},
        {"data": {"humaneval": {"id_prefix": 3, "sha256": "x"}}},
        {"checkpoint": "x"},
    ],
)
@pytest.mark.slow
def test_a_result_of_another_form_is_one_line(tmp_path: Path, samples: Path, change: dict):
    good = tmp_path / "a.json"
    call("score", "--samples", samples, "--json", good)
    bad = tmp_path / "b.json"
    bad.write_text(json.dumps(json.loads(good.read_text()) | change))
    for order in ((good, bad), (bad, good)):
        done = call("compare", *order, "--html", tmp_path / "c.html")
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"evalkit: {bad}: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[" * 100_000),
        ("run.json", "[]"),
        ("metrics.jsonl", "[" * 100_000),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", '{"step": 1, "loss": "x"}\n'),
        ("metrics.jsonl", "\xff"),
        ("held_out.jsonl", '{"document": "a", "window": "x", "tokens": 1, "bytes": 1}\n'),
        ("held_out.jsonl", '{"document": "a", "window": 0, "tokens": 1, "bytes": 1, "kl_sum": []}\n'),
    ],
)
def test_broken_files_of_a_run_are_one_line(tmp_path: Path, name: str, text: str):
    run = write_run(tmp_path / "run", kl=0.8)
    (run / name).write_text(text, encoding="latin-1")
    done = call("report", run, "--out", tmp_path / "r.html")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert name in line

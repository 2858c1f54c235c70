"""Tests of `teacher-dump --prompts`: responses are written, then recorded.

No counterpart: these tests run the command. Writing runs in the test's own process; `test_process.py` starts one.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import shards
from shards.runtime.heartbeat import Heartbeat
from shards.verify import verify
from teacher_dump.writing import process
from teacher_dump.writing.run import run_writing
from tests.teacher_dump.helpers import run_command
from tests.teacher_dump.writing.helpers import TEXTS, lines, save_prompts

SETTINGS = ("--engine", "transformers", "--dtype", "float32", "--decontaminate", "none")
SAMPLING = ("--samples", "3", "--max-new-tokens", "12", "--answers-per-task", "6")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(config: Any, settings: Any, stop_signals: Any) -> Any:
        return run_writing(config, settings, stop_signals, Heartbeat(out=io.StringIO()))

    monkeypatch.setattr(process, "write_in_process", write)


def run(model: Path, out: Path, *more: object, code: int = 0) -> Result:
    """Run `teacher-dump`."""
    result = run_command("--model", model, "--out", out, *SETTINGS, *more)
    assert result.exit_code == code, result.output
    return result


def rows_of(out: Path) -> dict[tuple[str, int], tuple[int, list[int]]]:
    """Return context and tokens of each row, by document and index."""
    return {
        (info.document, info.window): (
            info.context,
            chunk.tokens[chunk.row_starts[r] : chunk.row_starts[r + 1]].tolist(),
        )
        for chunk in shards.open(out)
        for r, info in enumerate(chunk.rows)
    }


def test_each_response_becomes_a_row_with_its_own_ids(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    out = tmp_path / "out"
    shown = run(tiny_teacher, out, "--prompts", prompts, *SAMPLING).output
    assert "21 responses" in shown
    cache = shards.open(out)
    assert verify(cache) == []
    assert cache.manifest.writer is not None
    assert cache.manifest.writer.name == tiny_teacher.name
    assert cache.manifest.writer.max_new_tokens == 12
    found = rows_of(out)
    assert len(found) == 21
    for line in lines(out):
        context, tokens = found[line["document"], line["index"]]
        assert context == len(line["prompt_ids"])
        assert tokens == line["prompt_ids"] + line["ids"]
    before = cache.manifest_sha256
    (out / "responses.jsonl").unlink()  # a complete cache needs no responses
    assert "already complete" in run(tiny_teacher, out, "--prompts", prompts, *SAMPLING).output
    assert shards.open(out).manifest_sha256 == before


def test_responses_only_stops_and_the_same_command_without_it_records(
    tiny_teacher: Path, tmp_path: Path, prompts: Path
) -> None:
    out = tmp_path / "out"
    run(tiny_teacher, out, "--prompts", prompts, *SAMPLING, "--responses-only")
    assert not (out / "manifest.json").exists()
    written = (out / "responses.jsonl").read_bytes()
    run(tiny_teacher, out, "--prompts", prompts, *SAMPLING)
    assert (out / "responses.jsonl").read_bytes() == written
    run(tiny_teacher, tmp_path / "other", "--data", out / "responses.jsonl")
    assert rows_of(out) == rows_of(tmp_path / "other")


def test_another_writer_with_another_tokenizer_is_tokenised_by_the_teacher(
    tiny_teacher: Path, tmp_path: Path, prompts: Path
) -> None:
    writer = Path(shutil.copytree(tiny_teacher, tmp_path / "student"))
    rules = json.loads((writer / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-40]
    (writer / "tokenizer.json").write_text(json.dumps(rules))
    out = tmp_path / "out"
    run(tiny_teacher, out, "--prompts", prompts, *SAMPLING, "--writer", writer)
    manifest = shards.open(out).manifest
    assert manifest.writer is not None
    assert manifest.writer.name == "student"
    assert manifest.writer.tokenizer != manifest.tokenizer.fingerprint
    found = rows_of(out)
    texts = {(line["document"], line["index"]): line["completion"] for line in lines(out)}
    assert set(found) <= set(texts)
    assert len(found) > 10  # a response that ends inside a character does not round-trip


def test_max_documents_is_a_number_of_prompts(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    run(tiny_teacher, tmp_path / "out", "--prompts", prompts, *SAMPLING, "--max-documents", "2")
    assert len(rows_of(tmp_path / "out")) == 6


def test_a_worker_whose_share_is_written_says_what_is_open(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    common = ("--prompts", prompts, *SAMPLING, "--worker")
    shown = run(tiny_teacher, tmp_path / "out", *common, "1/2").output
    assert "2 tasks of other workers are open" in shown
    run(tiny_teacher, tmp_path / "out", *common, "2/2")
    run(tiny_teacher, tmp_path / "out", *common, "1/2")
    assert len(rows_of(tmp_path / "out")) == 21


def test_prepare_writes_the_list_and_plan_needs_no_model(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    assert (
        "4 writing tasks, 7 prompts"
        in run(tiny_teacher, tmp_path / "out", "--prompts", prompts, *SAMPLING, "--prepare").output
    )
    shown = run(tiny_teacher, tmp_path / "none", "--prompts", prompts, *SAMPLING, "--plan", "--json").output
    plan = json.loads(shown)
    assert plan["writing"]["prompts"] == len(TEXTS)
    assert plan["writing"]["tokens"] == len(TEXTS) * 3 * 12
    assert plan["tokens"] > plan["writing"]["tokens"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--writer", "x"), "--writer: found no prompts to respond to"),
        (("--responses-only",), "--responses-only: found no prompts"),
        (("--prompts", "none.jsonl"), "found no such file, expected a JSONL or parquet file"),
        (("--prompts", "p", "--temperature", "0", "--samples", "2"), "all responses to a prompt are the same"),
        (("--prompts", "p", "--top-p", "0"), "top_p: found 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(
    tiny_teacher: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = run(tiny_teacher, tmp_path / "out", *more, code=1)
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_prompts_and_data_exclude_each_other(tiny_teacher: Path, tmp_path: Path) -> None:
    result = run(tiny_teacher, tmp_path / "out", "--prompts", save_prompts(tmp_path / "p.jsonl"), "--data", "x", code=2)
    assert "found both, expected one" in result.output

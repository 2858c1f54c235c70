"""Tests of the filters together: a second pass repeats the first, and a cache records its filters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from click.testing import CliRunner

import shards
from shards.verify import verify
from teacher_dump.cli import main
from teacher_dump.corpus.filters.pipeline import provenance
from teacher_dump.corpus.filters.settings import FilterSettings
from tests.teacher_dump.corpus.filters.conftest import ROW, filtered, words


def test_a_second_pass_drops_and_orders_the_same(tmp_path: Path) -> None:
    rows = [{"content": "\n".join(words(30, n % 7)) + f"\ny = {n % 9}\n"} for n in range(60)]
    corpus = filtered(rows, tmp_path)
    runs = []
    for _ in range(2):
        order = [d.sha256 for d in corpus]
        assert corpus.drop_log is not None
        runs.append((order, dict(corpus.counts), corpus.drop_log.save(tmp_path)))
    assert runs[0] == runs[1]
    assert runs[0][1]["dropped: near duplicate"] > 0


def test_a_dump_records_its_filters_and_refuses_others(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    arguments = ["--model", str(tiny_teacher), "--data", str(corpus_folder), "--out", str(out)]
    arguments += ["--engine", "transformers", "--max-tokens", "150", "--window-tokens", "48", "--decontaminate", "none"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for line in ("6  documents read", "1  dropped: exact duplicate", "NOT checked against any benchmark"):
        assert line in result.output
    manifest = shards.open(out).manifest
    raw = (out / "dropped.jsonl").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == manifest.corpus["dropped_sha256"]
    assert len(raw.splitlines()) == sum(n for k, n in manifest.corpus.items() if k.startswith("dropped: ")) == 3
    assert manifest.corpus["filters"] == provenance(FilterSettings(decontaminate="none"))
    (out / "dropped.jsonl").write_bytes(raw + b"{}")
    assert ["dropped.jsonl" in problem for problem in verify(shards.open(out))] == [True]
    other = CliRunner().invoke(main, [*arguments, "--max-line-length", "900"])
    assert other.exit_code == 1
    assert "filter max_line 1000 there, 900 requested" in other.output


def test_what_decides_is_part_of_the_identity(mbpp: Path) -> None:
    facts = [
        provenance(f)
        for f in (FilterSettings(), FilterSettings(max_line=99), FilterSettings(decontaminate=f"mbpp={mbpp}"))
    ]
    mbpp.write_text(json.dumps({**ROW, "task_id": 8}))
    facts.append(provenance(FilterSettings(decontaminate=f"mbpp={mbpp}")))
    assert len({json.dumps(f, sort_keys=True) for f in facts}) == 4

"""Tests of joining caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.merge import merge
from shards.edit.withdraw import withdraw
from shards.errors import ShardError
from shards.format.manifest import Manifest
from shards.verify import verify
from tests.shards.conftest import make_cache
from tests.shards.edit.conftest import rows_of, some_rows, write_cache


def test_merged_caches_hold_every_row_once_in_order(tmp_path: Path) -> None:
    a, b, c = some_rows(4, seed=0), some_rows(4, seed=1), some_rows(5, seed=2)
    first = write_cache(tmp_path / "a", [a, b], corpus={"source": "x", "documents": 8})
    second = write_cache(tmp_path / "b", [b[1:3] + c, b], corpus={"source": "y", "documents": 9})
    result = CliRunner().invoke(main, ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert "13 rows" in result.output
    assert "dropped 6 duplicate rows" in result.output
    merged = shards.open(tmp_path / "m")
    assert verify(merged) == []
    assert rows_of(merged) == rows_of(first) + [r for r in rows_of(second) if r not in rows_of(first)]
    assert merged.manifest.corpus["source"] == "x + y"
    assert merged.manifest.corpus["documents"] == 17
    kept = [s for s in merged.manifest.shards if s.sha256 in {e.sha256 for e in first.manifest.shards}]
    assert len(kept) == 2, "shards without a doubled row are the same bytes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {"teacher": replace(m.teacher, weights_sha256="1" * 64)}, "found the teacher's weights other than"),
        (lambda m: {"tokenizer": replace(m.tokenizer, fingerprint="u")}, "found the tokenizer other than"),
        (lambda m: {"tokenizer": replace(m.tokenizer, prefix_tokens=(1,))}, "found the prefix tokens other than"),
        (lambda m: {"engine": {"name": "test", "dtype": "bfloat16"}}, "found the engine's dtype other than"),
        (lambda m: {"layout": replace(m.layout, threshold=0.1)}, "found the layout's threshold other than"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    cache_folder: Path, tmp_path: Path, change: Callable[[Manifest], dict[str, Any]], said: str
) -> None:
    make_cache(tmp_path / "b", seed=1)
    other = shards.open(tmp_path / "b")
    changed = replace(other, manifest=replace(other.manifest, **change(other.manifest)))
    with pytest.raises(ShardError, match=said):
        merge([shards.open(cache_folder), changed], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_same_window_with_other_content_is_refused(tmp_path: Path) -> None:
    rows, others = some_rows(3, seed=0), some_rows(3, seed=1)
    others[2] = replace(others[2], info=replace(others[2].info, document=rows[1].info.document))
    with pytest.raises(ShardError, match=r"found window 0 of document .* keep one of the two"):
        merge([write_cache(tmp_path / "a", [rows]), write_cache(tmp_path / "b", [others])], tmp_path / "m")


def test_a_withdrawn_document_does_not_come_back_by_merging(tmp_path: Path) -> None:
    rows = some_rows(4, seed=0)
    whole = write_cache(tmp_path / "a", [rows])
    other = write_cache(tmp_path / "b", [some_rows(4, seed=1)])
    without = withdraw(whole, (rows[0].info.document,), tmp_path / "w").cache
    with pytest.raises(ShardError, match="which was withdrawn from"):
        merge([without, whole], tmp_path / "m")
    merged = merge([without, other], tmp_path / "m2").cache
    assert [t.document for t in merged.manifest.tombstones] == [rows[0].info.document]

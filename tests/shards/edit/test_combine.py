"""Tests of the cache of a mixture: rows, refusals, atomic output. `format/test_mixed_records.py` has the statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.combine import combine
from shards.edit.publish import publish
from shards.errors import ShardError
from shards.format.batch import Row
from shards.format.manifest import Manifest
from shards.verify import verify
from tests.shards.conftest import make_row
from tests.shards.edit.conftest import some_rows, write_cache


def retold(rows: list[Row], seed: int) -> list[Row]:
    """Return the same texts with the records of another teacher."""
    rng = np.random.default_rng(seed)
    others = [make_row(rng, tokens=len(row.tokens)) for row in rows]
    # A label in the head of the new records is coded by it; elsewhere any value is valid.
    return [replace(other, info=row.info, tokens=row.tokens) for row, other in zip(rows, others, strict=True)]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[shards.Cache, shards.Cache]:
    """Return caches of two teachers that share 4 rows, in other orders; one window has other tokens in the second."""
    rows, own, others = some_rows(6, seed=0), some_rows(2, seed=1), some_rows(3, seed=2)
    told = retold(rows[1:], seed=3)
    changed = replace(told[0], tokens=np.concatenate((told[0].tokens[:-1], [0])).astype(np.int32))
    first = write_cache(tmp_path / "a", [rows[:3] + own, rows[3:]])
    teacher = replace(first.manifest.teacher, name="other", weights_sha256="1" * 64, licence="mit")
    second = write_cache(tmp_path / "b", [others + told[3:], told[1:3], [changed]], teacher=teacher)
    return first, second


def test_rows_that_both_have_are_mixed_and_the_others_counted(
    pair: tuple[shards.Cache, shards.Cache], tmp_path: Path
) -> None:
    arguments = ["combine", str(tmp_path / "a"), str(tmp_path / "b"), "--weights", "3,1", "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    mixed = shards.open(tmp_path / "m")
    assert verify(mixed) == []
    assert f"{tmp_path / 'a'}: left out 4 rows that not all caches have" in result.output
    assert f"{tmp_path / 'b'}: left out 4 rows" in result.output
    assert mixed.rows == 4
    texts = [row.tokens.tolist() for chunk in mixed for row in map(chunk.row, range(len(chunk.rows)))]
    wanted = [row.tokens.tolist() for row in some_rows(6, seed=0)[2:]]
    assert texts == wanted, "in the order of the first cache"
    step = mixed.manifest.history[-1]
    assert (step["step"], step["weights"]) == ("combine", [0.75, 0.25])
    assert step["from"] == [cache.manifest_sha256 for cache in pair]
    assert step["left_out_rows"] == [4, 4]
    assert mixed.manifest.teacher.name == "0.75 test + 0.25 other"
    assert mixed.manifest.teacher.licence == "apache-2.0 + mit"
    assert mixed.manifest.temperatures == ()
    assert mixed.manifest.report["positions"] == sum(len(text) - 1 for text in wanted)


def test_a_mixture_of_three_is_published_with_its_card(pair: tuple[shards.Cache, shards.Cache], tmp_path: Path) -> None:
    first, second = pair
    third = write_cache(
        tmp_path / "c",
        [retold(some_rows(6, seed=0), seed=9)],
        teacher=replace(first.manifest.teacher, name="third", weights_sha256="2" * 64, restricts_outputs=True),
    )
    result = combine([first, second, third], [1, 1, 2], tmp_path / "m")
    assert result.left_out == (4, 4, 2)
    transfer = publish(result.cache, str(tmp_path / "published"))
    card = (tmp_path / "published" / "README.md").read_text()
    assert "0.25 test + 0.25 other + 0.5 third" in card
    assert transfer.manifest.teacher.restricts_outputs
    assert verify(shards.open(tmp_path / "published")) == []


def test_a_killed_run_is_repeated_and_an_old_result_is_left_alone(
    pair: tuple[shards.Cache, shards.Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shards.edit import combine as module

    real = module.finish

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        combine(pair, [1, 1], tmp_path / "m")
    assert not (tmp_path / "m" / "manifest.json").exists()
    monkeypatch.setattr(module, "finish", real)
    with pytest.raises(ShardError, match="found a cache or a part of another one"):
        combine(pair, [1, 2], tmp_path / "m")
    again = combine(pair, [1, 1], tmp_path / "m").cache
    assert again.manifest_sha256 == combine(pair, [2, 2], tmp_path / "n").cache.manifest_sha256
    with pytest.raises(ShardError, match="found a cache or a part of another one"):
        combine(pair, [1, 1], tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {"tokenizer": replace(m.tokenizer, fingerprint="u")}, "found the tokenizer other than"),
        (lambda m: {"tokenizer": replace(m.tokenizer, prefix_tokens=(1,))}, "found the prefix tokens other than"),
        (lambda m: {"layout": replace(m.layout, threshold=0.1)}, "found the layout's threshold other than"),
        (lambda m: {"layout": replace(m.layout, vocab_size=200)}, "found the layout's vocab_size other than"),
        (lambda m: {"layout": replace(m.layout, version=2)}, "found the format version other than"),
        (lambda m: {"layout": replace(m.layout, absent=("draws",))}, "found no draws of the tail, expected whole"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    pair: tuple[shards.Cache, shards.Cache], tmp_path: Path, change: Callable[[Manifest], dict[str, Any]], said: str
) -> None:
    first, second = pair
    changed = replace(second, manifest=replace(second.manifest, **change(second.manifest)))
    with pytest.raises(ShardError, match=said):
        combine([first, changed], [1, 1], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_caches_and_weights_that_make_no_mixture_are_refused(
    pair: tuple[shards.Cache, shards.Cache], tmp_path: Path
) -> None:
    out = tmp_path / "m"
    with pytest.raises(ShardError, match="found 2 caches and 1 weights"):
        combine(pair, [1], out)
    with pytest.raises(ShardError, match="weights: found 1, -1, expected numbers above 0"):
        combine(pair, [1, -1], out)
    with pytest.raises(ShardError, match="twice, expected caches of different teachers"):
        combine([pair[0], pair[0]], [1, 1], out)
    said = CliRunner().invoke(main, ["combine", str(tmp_path / "a"), "--weights", "x", "--out", str(out)]).output
    assert "weights: found 'x', expected numbers with commas between" in said
    assert not out.exists()


def test_caches_of_other_rows_are_refused(pair: tuple[shards.Cache, shards.Cache], tmp_path: Path) -> None:
    other = write_cache(tmp_path / "c", [some_rows(3, seed=7)])
    with pytest.raises(ShardError, match=r"found no row of .* in all other caches"):
        combine([pair[0], other], [1, 1], tmp_path / "m")
    assert not (tmp_path / "m" / "manifest.json").exists()

"""Tests of mixtures of caches with other columns: relations, responses, absent parts, other temperatures, no tokens."""

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
from shards.format.schema import Layout
from shards.verify import verify
from tests.shards.conftest import LAYOUT, RELATIONS, RESPONSES, make_responses, make_row, with_random_vectors
from tests.shards.edit.conftest import some_rows, write_cache


def retold(rows: list[Row], seed: int, *, layout: Layout = LAYOUT) -> list[Row]:
    """Return the same texts with the records of another teacher."""
    rng = np.random.default_rng(seed)
    others = [make_row(rng, tokens=len(row.tokens), context=row.info.context, layout=layout) for row in rows]
    return [replace(other, info=row.info, tokens=row.tokens) for row, other in zip(rows, others, strict=True)]


def pair(
    root: Path, rows: list[Row], told: list[Row], layout: Layout = LAYOUT, other: Layout | None = None
) -> tuple[shards.Cache, shards.Cache]:
    """Return caches of two teachers."""
    first = write_cache(root / "a", [rows], layout=layout)
    teacher = replace(first.manifest.teacher, name="other", weights_sha256="1" * 64)
    return first, write_cache(root / "b", [told], layout=other or layout, teacher=teacher)


def single_rows(cache: shards.Cache) -> list[Any]:
    return [row for chunk in cache for row in map(chunk.row, range(len(chunk.rows)))]


@pytest.mark.parametrize("both", [True, False])
def test_relations_are_left_out_with_a_line(both: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with_vectors = replace(LAYOUT, relations=RELATIONS)
    rows = some_rows(4, seed=0)
    told = retold(rows, seed=1)
    plain = combine(pair(tmp_path / "plain", rows, told), [1, 1], tmp_path / "plain" / "m").cache
    rows = [with_random_vectors(row, rng) for row in rows]
    told = [with_random_vectors(row, rng) for row in told] if both else told
    pair(tmp_path, rows, told, with_vectors, with_vectors if both else LAYOUT)
    arguments = ["combine", str(tmp_path / "a"), str(tmp_path / "b"), "--weights", "1,1", "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for name, has_vectors in (("a", True), ("b", both)):
        line = f"{tmp_path / name}: left out the relations of layer 3, which a mixture has none of"
        assert (line in result.stderr) == has_vectors
    mixed = shards.open(tmp_path / "m")
    assert verify(mixed) == []
    assert mixed.manifest.layout == plain.manifest.layout
    assert all(row.relations is None for row in single_rows(mixed))
    # Draws are seeded by the manifests, which differ; what is not drawn is that of caches without relations.
    for found, wanted in zip(single_rows(mixed), single_rows(plain), strict=True):
        assert np.array_equal(found.entropy, wanted.entropy)
        assert np.array_equal(found.label_logp, wanted.label_logp)


def test_responses_are_mixed_behind_their_contexts(tmp_path: Path) -> None:
    rows = [row for seed in range(3) for row in make_responses(np.random.default_rng(seed))]
    caches = pair(tmp_path, rows, retold(rows, seed=5, layout=RESPONSES), RESPONSES)
    mixed = combine(caches, [1, 3], tmp_path / "m").cache
    assert verify(mixed) == []
    assert mixed.manifest.layout.has_responses
    assert mixed.manifest.writer == caches[0].manifest.writer
    found = single_rows(mixed)
    assert [row.rows[0] for row in found] == [row.info for row in rows]
    for row, first, second in zip(found, *map(single_rows, caches), strict=True):
        assert row.tokens.tolist() == first.tokens.tolist()
        mixture = np.logaddexp(np.log(0.25) + first.whitespace_logp, np.log(0.75) + second.whitespace_logp)
        assert row.whitespace_logp == pytest.approx(mixture, abs=0.02)
        assert len(row.tail_mass) == len(first.tail_mass)


def without(row: Row, parts: tuple[str, ...]) -> Row:
    """Return a row without log Z and without parts, as an import may lack them."""
    unknown = np.full(len(row.entropy), np.nan, np.float32)
    names = {"entropy": "entropy", "realised": "label_logp", "whitespace": "whitespace_logp"}
    return replace(row, log_z=row.log_z[:, :0], **{names[part]: unknown for part in parts})


@pytest.mark.parametrize("absent", [("entropy",), ("realised", "whitespace")])
def test_a_part_that_one_cache_lacks_is_lacking_in_the_mixture(absent: tuple[str, ...], tmp_path: Path) -> None:
    rows = some_rows(4, seed=0)
    told = [without(row, absent) for row in retold(rows, seed=1)]
    partial = replace(LAYOUT, temperatures=(), absent=absent)
    caches = pair(tmp_path, rows, told, LAYOUT, partial)
    mixed = combine(caches, [1, 1], tmp_path / "m").cache
    assert verify(mixed) == []
    assert mixed.manifest.layout == partial
    for row in single_rows(mixed):
        values = {"entropy": row.entropy, "realised": row.label_logp, "whitespace": row.whitespace_logp}
        assert {part for part, value in values.items() if np.isnan(value).any()} == set(absent)


def test_other_temperatures_are_no_hindrance(tmp_path: Path) -> None:
    rows = some_rows(3, seed=0)
    cold = replace(LAYOUT, temperatures=(3.0,))
    mixed = combine(pair(tmp_path, rows, retold(rows, seed=1, layout=cold), LAYOUT, cold), [1, 1], tmp_path / "m").cache
    assert (mixed.rows, mixed.manifest.temperatures) == (3, ())
    assert verify(mixed) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda layout: replace(layout, vocab_size=1008),
            r"found the layout's vocab_size other than .*: 1008, expected",
        ),
        (lambda layout: replace(layout, entropy_max=20.0), "found the layout's entropy_max other than"),
        (
            lambda layout: replace(layout, absent=("tail",), temperatures=()),
            "found no mass outside the head .*expected whole",
        ),
    ],
)
def test_what_makes_no_mixture_is_refused_by_name(
    change: Callable[[Layout], Layout], said: str, tmp_path: Path
) -> None:
    rows = some_rows(2, seed=0)
    first, second = pair(tmp_path, rows, retold(rows, seed=1))
    changed = replace(second, manifest=replace(second.manifest, layout=change(second.manifest.layout)))
    with pytest.raises(ShardError, match=said):
        combine([first, changed], [1, 1], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_caches_without_their_tokens_are_refused_by_name(tmp_path: Path) -> None:
    rows = some_rows(2, seed=0)
    stripped = []
    for cache in pair(tmp_path, rows, retold(rows, seed=1)):
        folder = tmp_path / cache.manifest.teacher.name
        publish(cache, str(folder), without_tokens=True)
        stripped.append(shards.open(folder))
    with pytest.raises(ShardError, match="hydrate"):
        combine(stripped, [1, 1], tmp_path / "m")

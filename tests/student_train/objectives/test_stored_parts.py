"""Tests of losses on caches that lack parts of the records: what is refused by name, and what trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import shards
from shards.errors import ShardError
from shards.imports.run import ImportRequest, import_cache
from student_train.choices import DIVERGENCES
from student_train.cli import main
from student_train.config import Config
from student_train.errors import TrainError
from student_train.losses.divergences import DIVERGENCES as TABLE
from student_train.objectives.same_tokenizer import temperature_column
from student_train.objectives.stored_parts import _PARTS_OF_KIND, require_all_parts, require_stored_parts

WITHOUT_DRAWS = ("draws", "entropy", "realised", "whitespace")
WITHOUT_TAIL = ("draws", "entropy", "realised", "tail", "whitespace")


@pytest.fixture(scope="module")
def imported(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of the heads of the world's rows, as another tool would have stored them."""
    folder = tmp_path_factory.mktemp("imported")
    rows = []
    for row in world.rows:
        lists = [slice(int(a), int(b)) for a, b in zip(row.head_starts[:-1], row.head_starts[1:], strict=True)]
        rows.append(
            {
                "input_ids": row.tokens.tolist(),
                "token_ids": [row.head_ids[part].tolist() for part in lists],
                "logprobs": [np.log(row.head_probs[part]).tolist() for part in lists],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    request = ImportRequest(layout="top-k-parquet", path=folder / "rows.parquet", tokenizer=str(world.teacher_dir))
    import_cache(request, folder / "shards")
    return folder / "shards"


def with_absent(cache: shards.Cache, absent: tuple[str, ...]) -> shards.Cache:
    layout = replace(cache.manifest.layout, absent=absent)
    return replace(cache, manifest=replace(cache.manifest, layout=layout))


@pytest.mark.parametrize(
    ("absent", "possible"),
    [
        (WITHOUT_DRAWS, {"bucket-forward-kl", "bucket-reverse-kl", "bucket-skew-kl", "bucket-js", "top-k"}),
        (WITHOUT_TAIL, {"top-k"}),
    ],
)
def test_losses_that_need_what_is_absent_are_refused_by_name(
    absent: tuple[str, ...], possible: set[str], imported: Path
) -> None:
    cache = with_absent(shards.open(imported), absent)
    for name in DIVERGENCES:
        if name in possible:
            require_stored_parts(Config(divergence=name), cache)
            continue
        with pytest.raises(TrainError, match=f"^divergence {name} needs the .*, which .* does not store; choose") as e:
            require_stored_parts(Config(divergence=name), cache)
        assert all(other in str(e.value) for other in possible)
    require_stored_parts(Config(objective="sft"), cache)
    with pytest.raises(TrainError, match=r"^a specialist needs the draws of the tail.* without --specialist"):
        require_stored_parts(Config(specialist=(1, 2)), cache)


def test_whole_records_suit_every_loss(world: Any) -> None:
    cache = shards.open(str(world.shards))
    for name in DIVERGENCES:
        require_stored_parts(Config(divergence=name), cache)
    require_all_parts(cache)


def test_every_kind_of_targets_says_what_it_needs() -> None:
    assert {entry.target_kind for entry in TABLE.values()} <= _PARTS_OF_KIND.keys()


def test_another_tokenizer_and_another_temperature_are_refused(imported: Path) -> None:
    with pytest.raises(TrainError, match="a student with another tokenizer needs whole records"):
        require_all_parts(shards.open(imported))
    with pytest.raises(TrainError, match=r"temperature is 2\.0; the shards store none"):
        temperature_column(Config(temperature=2.0, divergence="bucket-forward-kl"), shards.open(imported))


def test_the_command_refuses_before_it_loads_a_student(imported: Path, tmp_path: Path) -> None:
    arguments = ["--shards", str(imported), "--student", str(tmp_path / "no-student"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "divergence forward-kl needs the draws of the tail" in result.output


@pytest.mark.parametrize("divergence", ["bucket-forward-kl", pytest.param("top-k", marks=pytest.mark.slow)])
def test_a_student_learns_from_an_imported_cache(divergence: str, imported: Path, world: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--shards", str(imported), "--student", str(world.teacher_dir), "--divergence", divergence]
    more = [
        "--student-layers",
        "2",
        "--batch-tokens",
        "400",
        "--max-steps",
        "3",
        "--held-out",
        "0.2",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(main, arguments + more)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text(), parse_constant=pytest.fail)  # NaN would be one
    assert record["held_out"]["after"]["kl"]["mean"] > 0


def test_missing_is_not_zero(imported: Path) -> None:
    """A reader has NaN for what is absent, so nothing can be computed from it unnoticed."""
    chunk = shards.open(imported)[0]
    for name in ("entropy", "whitespace_logp"):
        assert np.isnan(getattr(chunk, name)).all()
    assert not len(chunk.draw_ids)
    with pytest.raises(ShardError, match="absent"):
        replace(shards.open(imported).manifest.layout, absent=("entropy", "draws"))

"""Tests of one growing cache beside complete ones: shares by segment, passes across segments, resuming, refusals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import shards
from student_train.config import Config
from student_train.data.mixture import num_positions, open_mixture, plan_of
from student_train.data.segments import Leg, Segments
from student_train.errors import CheckpointError, TrainError
from student_train.training import loop
from student_train.training.distributed import World
from tests.student_train.growing import Dump, rows_of
from tests.student_train.toy import digest, run, toy_config

SHARE = Fraction(3, 4)
"""Share of the growing cache."""


@pytest.fixture(scope="module")
def beside(world: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete cache of the same teacher: rows of other documents, longer than those of the world."""
    rows = [tools.random_row(40 + n % 17, seed=100 + n, vocab=world.vocab) for n in range(22)]
    return Path(
        tools.write_cache(tmp_path_factory.mktemp("beside") / "cache", rows, world.teacher_dir, vocab=world.vocab)
    )


@pytest.fixture
def dump(world: Any, tools: Any, tmp_path: Path) -> Dump:
    whole = tools.write_cache(tmp_path / "whole", world.rows, world.teacher_dir, vocab=world.vocab, shards=4)
    return Dump(whole, tmp_path / "growing")


def settings_of(world: Any, followed: Path, beside: Path, out: Path, **more: Any) -> Config:
    caches = (f"{followed}={float(SHARE)}", f"{beside}={float(1 - SHARE)}")
    return toy_config(world, out, **{"shards": caches, "follow": True, "max_steps": 1000, **more})


def segments_of(settings: Config, written: list[dict[str, Any]]) -> Segments:
    return Segments(settings, open_mixture(settings), written, world=World(), log=print, stopped=lambda: False)


def legs_of(segments: Segments, grow: list[Callable[[], object]]) -> list[Leg]:
    """Return the legs of a run, before which shards appear."""
    legs = list(segments.legs(total=1000, before_waiting=lambda: grow.pop(0)()))
    assert not grow
    return [leg for leg in legs if leg is not None]


@pytest.mark.slow
def test_each_segment_is_read_once_beside_its_share_of_the_others(
    world: Any, dump: Dump, beside: Path, tmp_path: Path
) -> None:
    settings = settings_of(world, dump.place, beside, tmp_path / "out")
    segments = segments_of(settings, [])
    steps: list[Callable[[], object]] = [lambda: dump.shard(1), lambda: (dump.shard(3), dump.shard(0))]
    legs = legs_of(segments, [*steps, lambda: dump.shard(2), dump.finish])
    assert [len(each["shards"]) for each in segments.written] == [1, 2, 1, 4]

    followed = [row for leg in legs[:-1] for row in rows_of(leg)]
    assert Counter(followed) == Counter((row.rows[0].document, row.rows[0].window) for row in world.rows)
    complete = shards.open(beside)
    positions = 0
    others: list[tuple[str, int]] = []
    for leg in legs[:-1]:
        assert leg.plan.first_step == (0 if leg is legs[0] else legs[legs.index(leg) - 1].last)
        positions += leg.caches[0].tokens - leg.caches[0].rows
        others += rows_of(leg, cache=1)
        wanted = positions / SHARE * (1 - SHARE) * complete.rows / num_positions(complete)
        assert len(others) == round(wanted), "to within half a row after each segment"
    # The complete cache goes on from leg to leg in the order that it has beside any other.
    others += rows_of(legs[-1], cache=1)
    sole = plan_of(settings, [complete], digests=[complete.manifest_sha256])
    alone = rows_of(Leg(caches=(complete,), plan=sole, last=10**6))
    assert len(others) < 2 * complete.rows
    assert others[: complete.rows] == alone[: len(others)]


@pytest.mark.slow
def test_what_is_written_down_decides_the_rows_on_any_number_of_ranks(
    world: Any, dump: Dump, beside: Path, tmp_path: Path
) -> None:
    settings = settings_of(world, dump.place, beside, tmp_path / "out")
    dump.shard(2)
    steps: list[Callable[[], object]] = [lambda: dump.shard(0), lambda: (dump.shard(1), dump.shard(3)), dump.finish]
    segments = segments_of(settings, [])
    legs = legs_of(segments, steps)
    again = legs_of(segments_of(settings, json.loads(json.dumps(segments.written))), [])
    assert [leg.plan for leg in again] == [leg.plan for leg in legs]
    for leg in legs:
        for cache in (0, 1):
            assert rows_of(leg, cache=cache, world_size=3) == rows_of(leg, cache=cache)


@pytest.mark.slow
def test_positions_of_a_segment_of_responses_are_those_of_its_rows(
    world: Any, tools: Any, beside: Path, tmp_path: Path
) -> None:
    """The report counts the whole cache, which is not what a segment has."""
    rows = [tools.random_row(30 + n, seed=n, vocab=world.vocab) for n in range(12)]
    whole = tools.write_cache(tmp_path / "whole", rows, world.teacher_dir, vocab=world.vocab, version=2)
    manifest = shards.open(whole).manifest
    positions = sum(len(row.tail_mass) for row in rows)
    (whole / "manifest.json").write_bytes(replace(manifest, report={"positions": positions}).to_bytes())
    dump = Dump(whole, tmp_path / "growing")
    dump.shard(0)
    segments = segments_of(settings_of(world, dump.place, beside, tmp_path / "out"), [])
    legs_of(segments, [lambda: dump.shard(1), dump.finish])
    counts = [sum(len(row.tail_mass) for row in rows[i::2]) for i in (0, 1)]
    assert [segment["positions"] for segment in segments.written] == [*counts, positions]


def test_more_than_one_growing_cache_is_refused_by_name(world: Any, dump: Dump, beside: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=rf"found {dump.place} still being written beside {beside}, expected one such"):
        open_mixture(settings_of(world, beside, dump.place, tmp_path / "out"))
    for i in range(4):
        dump.shard(i)
    dump.finish()
    with pytest.raises(TrainError, match=r"found the cache of manifest \w+ as .* and as .*, expected each cache once"):
        open_mixture(settings_of(world, dump.place, dump.whole, tmp_path / "out"))
    with pytest.raises(TrainError, match=f"follow with 2 caches: found no weights, .* write {dump.place}=WEIGHT"):
        settings_of(world, dump.place, beside, tmp_path / "out", shards=(str(dump.place), str(beside)))


@pytest.mark.slow
def test_followed_stopped_and_repeated_runs_end_in_the_same_bits(
    world: Any, at_home: Any, dump: Dump, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"max_steps": 10, "batch_tokens": 400, "micro_tokens": 200, "save_every": 3}
    dump.shard(1)
    grow = [lambda: dump.shard(3), lambda: (dump.shard(0), dump.shard(2)), dump.finish]
    with monkeypatch.context() as patch:
        patch.setattr(Segments, "_wait", lambda *_: grow.pop(0)())
        said = run(settings_of(world, dump.place, beside, tmp_path / "a", **small))
    assert any(f"{dump.place}: followed, 75.0% of the tokens, " in line for line in said)
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    manifests = [shards.open(path).manifest_sha256 for path in (dump.whole, beside)]
    assert [cache["manifest_sha256"] for cache in record["caches"]] == manifests
    assert sum(cache["read"]["rows"] for cache in record["caches"]) == record["train"]["rows"]
    state = json.loads((tmp_path / "a" / "checkpoints" / "step-9" / "state.json").read_text())
    assert [(cache["manifest_sha256"], cache["share"]) for cache in state["caches"]] == [
        ("", 0.75),
        (manifests[1], 0.25),
    ]

    # From the complete cache: the record alone says what was read when. Stopped on the way, refused with other shares.
    repeat, real = settings_of(world, dump.whole, beside, tmp_path / "b", **small), loop.take_step

    def dies(*args: Any, number: int, **named: Any) -> Any:
        if number == 8:
            raise KeyboardInterrupt
        return real(*args, number=number, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "take_step", dies)
        run(repeat, segments=record["segments"])
    other = (f"{dump.whole}=1", f"{beside}=1")
    with pytest.raises(
        CheckpointError, match=r"found a run .* manifest followed=0.75 \+ \w+=0.25, expected followed=0.5"
    ):
        run(settings_of(world, dump.whole, beside, tmp_path / "b", shards=other, **small))
    run(repeat)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "run.json").read_text())["segments"] == record["segments"]

"""Tests of the reading thread: it yields the steps of the plan, and raises an error at the step that it belongs to."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import Counter
from typing import Any

import pytest
import torch

import shards
from shards.errors import CorruptShardError, StoreError
from shards.storage.store import open_store
from student_train.config import Config
from student_train.data.hashing import HeldOutRule, is_held_out
from student_train.data.loader import BatchSpec, CacheSpec, Rows, Stream, read_step
from student_train.data.mixture import plan_of
from student_train.data.packing import Packing
from student_train.data.sampler import rows_of_step
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.objectives.same_tokenizer import SameTokenizer
from tests.shards.faulty_s3 import Proxy, s3, s3_server  # noqa: F401


def setup(world: Any, *, held_out: float = 0.2) -> tuple[Any, Any, BatchSpec]:
    cache = shards.open(str(world.shards))
    plan = plan_of(Config(batch_tokens=150), [cache], digests=[cache.manifest_sha256])
    objective = SameTokenizer(
        loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.3),
        targets=TargetSpec(vocab_size=world.vocab, target_kind="linear"),
        max_row_tokens=128,
    )
    rules = CacheSpec(batcher=objective, held_out=HeldOutRule(fraction=held_out))
    spec = BatchSpec(caches=(rules,), packing=Packing(micro_tokens=100))
    return cache, plan, spec


@pytest.mark.slow
def test_a_stream_yields_the_steps_of_the_plan_without_held_out_rows(world: Any) -> None:
    cache, plan, spec = setup(world)
    with Stream([cache], plan, spec, first=3, last=12, prefetch=2) as stream:
        steps = list(stream)
    assert [step.number for step in steps] == list(range(3, 12))
    for step in steps:
        rows = [cache[ref.chunk].rows[ref.row] for ref in rows_of_step(plan, step=step.number)]
        kept = [row for row in rows if not is_held_out(row.document, fraction=0.2)]
        assert [row for batch in step.batches for row in batch.rows] == kept


@pytest.mark.slow
def test_ranks_together_read_what_one_rank_reads(world: Any) -> None:
    cache, plan, spec = setup(world)
    for step in range(4):
        alone = read_step(Rows([cache]), plan, spec, step=step)
        parts = [read_step(Rows([cache]), plan, spec, step=step, rank=r, world_size=3) for r in range(3)]
        joined = [row for part in parts for batch in part.batches for row in batch.rows]
        assert joined == [row for batch in alone.batches for row in batch.rows]
        assert sum(part.num_positions for part in parts) == alone.num_positions


@pytest.mark.slow
def test_any_stops_and_world_sizes_read_each_row_once_per_epoch(world: Any) -> None:
    """Real threads, real shards: 4, 3, 12, 1 and 2 ranks take turns, two epochs, a resume where none was done yet."""
    cache, plan, spec = setup(world, held_out=0.0)
    total = 2 * plan.steps_per_epoch
    stops = [0, 3, 3, 7, plan.steps_per_epoch + 2, total - 4, total]
    seen = []
    for world_size, (first, last) in zip((4, 3, 12, 1, 2, 12), itertools.pairwise(stops), strict=True):
        state = json.loads(json.dumps({"step": first}))  # all that a checkpoint knows of the data
        with contextlib.ExitStack() as stack:
            ranks = [
                iter(stack.enter_context(Stream(
                    [cache], plan, spec, first=state["step"], last=last, prefetch=1, rank=rank, world_size=world_size
                )))
                for rank in range(world_size)
            ]  # fmt: skip
            for _ in range(first, last):
                seen += [(row.document, row.window) for rank in ranks for b in next(rank).batches for row in b.rows]
    every = Counter((row.rows[0].document, row.rows[0].window) for row in world.rows)
    assert Counter(seen[: len(world.rows)]) == every
    assert Counter(seen[len(world.rows) :]) == every


@pytest.mark.slow
def test_a_bucket_that_fails_often_gives_the_same_steps(world: Any, s3: Proxy) -> None:  # noqa: F811
    local, plan, spec = setup(world)
    for path in sorted(p for p in world.shards.rglob("*") if p.is_file()):
        open_store("s3://bucket/cache").upload(path, str(path.relative_to(world.shards)))
    s3.misbehave(0.2, "500", "503", "reset", "cut", "short", seed=1)
    remote = shards.open("s3://bucket/cache")
    assert remote.manifest_sha256 == local.manifest_sha256
    expected = [read_step(Rows([local]), plan, spec, step=step) for step in range(plan.steps_per_epoch)]
    with Stream([remote], plan, spec, first=0, last=plan.steps_per_epoch, prefetch=2) as stream:
        for found, wanted in zip(stream, expected, strict=True):
            for a, b in zip(found.batches, wanted.batches, strict=True):
                assert a.rows == b.rows
                assert torch.equal(a.targets.weight_PK, b.targets.weight_PK)
    assert s3.met


@pytest.mark.slow
def test_a_bucket_that_is_gone_stops_the_consumer_after_retries(world: Any, s3: Proxy) -> None:  # noqa: F811
    _, plan, spec = setup(world)
    for path in sorted(p for p in world.shards.rglob("*") if p.is_file()):
        open_store("s3://bucket/cache").upload(path, str(path.relative_to(world.shards)))
    remote = shards.open("s3://bucket/cache")
    s3.misbehave(1.0, "503")
    with (
        pytest.raises(StoreError, match=r"shard-\d+.arrow chunk \d+: .*gave up after 5 attempts, check the address"),
        Stream([remote], plan, spec, first=0, last=3, prefetch=1) as stream,
    ):
        next(iter(stream))


def test_a_damaged_chunk_stops_the_consumer_at_its_step(world: Any) -> None:
    cache, plan, spec = setup(world)
    bad = rows_of_step(plan, step=plan.steps_per_epoch - 1)[-1].chunk

    class Damaged:
        def __getitem__(self, i: int) -> Any:
            if i == bad:
                raise CorruptShardError(f"chunk {i}: damaged")
            return cache[i]

    first_bad = next(s for s in range(plan.steps_per_epoch) if any(r.chunk == bad for r in rows_of_step(plan, step=s)))
    seen = []
    with (
        pytest.raises(CorruptShardError, match="damaged"),
        Stream([Damaged()], plan, spec, first=0, last=plan.steps_per_epoch, prefetch=1) as stream,  # type: ignore[arg-type]
    ):
        seen.extend(step.number for step in stream)
    assert seen == list(range(first_bad))


def test_leaving_early_ends_the_thread(world: Any) -> None:
    cache, plan, spec = setup(world)
    with Stream([cache], plan, spec, first=0, last=1000, prefetch=1) as stream:
        next(iter(stream))
    assert not any(thread.name == "reader" for thread in threading.enumerate())


def test_a_step_whose_rows_are_all_held_out_is_empty(world: Any) -> None:
    cache, plan, spec = setup(world, held_out=1.0)
    step = read_step(Rows([cache]), plan, spec, step=0)
    assert step.batches == ()
    assert step.num_positions == 0

"""Tests of held-out rows, their batches and the figures made of their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

import shards
from student_train.data.hashing import HeldOutRule, is_held_out
from student_train.data.packing import Packing
from student_train.evaluation.held_out import HeldOutSet, held_out_rows, lines, summary
from student_train.objectives.row_score import RowScore
from student_train.objectives.same_tokenizer import MEASURES
from student_train.training.distributed import World


@dataclass(frozen=True)
class Labelled:
    """Stands in for a row and for its batch."""

    name: str
    kind: int = 0


class CountingObjective:
    """Stands in for an objective; counts how often batches are made."""

    def __init__(self) -> None:
        self.made: list[list[Labelled]] = []

    def held_out_batches(self, rows: list[Labelled], packing: Packing) -> tuple[Labelled, ...]:
        self.made.append(rows)
        return tuple(rows)


def row_score(document: str, *, tokens: int, kl: float, nll: float, top1: int) -> RowScore:
    bins = [[0.0, 0.0, 0.0]] * 9 + [[float(tokens), float(tokens), float(top1)]]
    return RowScore(
        document=document, window=0, tokens=tokens, bytes=2 * tokens, kl_sum=kl, nll_sum=nll, top1_sum=top1, bins=bins
    )


def test_held_out_rows_come_in_the_caches_order_up_to_a_number_of_tokens(world: Any) -> None:
    cache = shards.open(str(world.shards))
    rule = HeldOutRule(fraction=0.3)
    every = held_out_rows(cache, rule=rule, max_tokens=10**9)
    assert every
    assert all(is_held_out(row.rows[0].document, fraction=0.3) for row in every)
    limit = sum(len(row.tokens) for row in every) - 1
    names = [[(row.rows[0].document, row.rows[0].window) for row in rows] for rows in (
        every, held_out_rows(cache, rule=rule, max_tokens=limit), held_out_rows(cache, rule=rule, max_tokens=1)
    )]  # fmt: skip
    assert names[1] == names[0][:-1]
    assert names[2] == names[0][:1]
    assert held_out_rows(cache, rule=HeldOutRule(fraction=0.0), max_tokens=10**9) == []


def test_batches_are_made_once_for_each_share_of_the_rows() -> None:
    objective: Any = CountingObjective()
    rows: Any = [Labelled("a"), Labelled("b"), Labelled("c")]
    held_out = HeldOutSet(rows, objective, Packing(micro_tokens=1), kind=2)
    for _ in range(3):
        assert held_out.batches(World()) == tuple(Labelled(row.name, kind=2) for row in rows)
        assert held_out.batches(World(rank=1, size=2)) == (Labelled("b", kind=2),)
    assert objective.made == [rows, rows[1:2]]


def test_figures_are_ratios_of_sums() -> None:
    scores = [
        row_score("one", tokens=10, kl=2.0, nll=20.0, top1=4),
        row_score("two", tokens=30, kl=10.0, nll=20.0, top1=36),
    ]
    figures = summary(scores, MEASURES)
    assert figures is not None
    assert set(figures) == {"kl", "bits_per_byte", "top1_agreement", "calibration_error"}
    assert figures["kl"]["mean"] == pytest.approx(12.0 / 40)
    assert figures["bits_per_byte"]["mean"] == pytest.approx(40.0 / math.log(2.0) / 80)
    assert figures["top1_agreement"]["mean"] == pytest.approx(1.0)
    assert figures["calibration_error"]["mean"] == pytest.approx(0.0)
    # An interval over two documents spans the figures of each alone.
    assert figures["kl"]["low"] == pytest.approx(0.2)
    assert figures["kl"]["high"] == pytest.approx(1 / 3)
    assert summary([], MEASURES) is None


def test_lines_hold_the_sums_before_and_after() -> None:
    before, after = (row_score("one", tokens=10, kl=kl, nll=5.0, top1=4) for kl in (3.0, 1.0))
    (line,) = lines([after], [before], MEASURES)
    assert line["kl_sum"] == 1.0
    assert line["kl_sum_before"] == 3.0
    assert {"bins", "chunk_kl_sum", "boundaries"}.isdisjoint(line)

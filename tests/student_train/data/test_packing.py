"""Tests of packing: rows that share a sequence do not affect each other, and little of it is padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.data.packing import MAX_WASTE, Packing, bins, groups
from student_train.errors import TrainError
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer

OBJECTIVE = SameTokenizer(
    loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.3),
    targets=TargetSpec(vocab_size=60, target_kind="linear"),
    max_row_tokens=128,
)
PACKING = Packing(micro_tokens=1000)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=40))
def test_every_row_has_one_place_and_at_most_two_percent_is_wasted(lengths: list[int]) -> None:
    filled, width = bins(lengths)
    assert sorted(i for rows in filled for i in rows) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in rows) <= width for rows in filled)
    assert sum(lengths) >= (1 - MAX_WASTE) * width * len(filled)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(2, 60), max_size=40), limit=st.integers(1, 200))
@pytest.mark.slow
def test_groups_hold_every_row_in_order_within_the_limit(lengths: list[int], limit: int) -> None:
    parts = [lengths[part] for part in groups(lengths, Packing(micro_tokens=limit))]
    assert [n for part in parts for n in part] == lengths
    assert all(sum(part) <= limit or len(part) == 1 for part in parts)


def small_phi(vocab: int) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    return PhiForCausalLM(
        PhiConfig(
            vocab_size=vocab,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
        )
    ).eval()


@pytest.mark.parametrize("family", ["llama", "phi"])
@pytest.mark.parametrize("lengths", [[20, 20, 20], [40, 12, 27, 3, 38], [50, 2]])
def test_packed_rows_give_what_each_row_gives_alone(tools: Any, family: str, lengths: list[int]) -> None:
    model = tools.llama(vocab=60) if family == "llama" else small_phi(60)
    distiller = Distiller(model, OBJECTIVE, dtype="float32")
    rows = [tools.random_row(n, seed=i) for i, n in enumerate(lengths)]
    (batch,) = OBJECTIVE.batches(rows, PACKING)
    together = distiller.hidden(batch)[batch.index_P]
    start = 0
    for row in rows:
        (alone,) = OBJECTIVE.batches([row], PACKING)
        mine = distiller.hidden(alone)[alone.index_P]
        torch.testing.assert_close(together[start : start + len(mine)], mine, rtol=1e-4, atol=1e-5)
        start += len(mine)
    assert start == len(together)
    assert batch.targets.ids_PK[:, 0].tolist() == [int(t) for row in rows for t in row.tokens[1:]]
    shares = batch.attention_mask_B1TT is not None
    assert shares == (len(set(lengths)) > 1)


def test_positions_that_predict_the_prefix_are_left_out(tools: Any) -> None:
    import dataclasses

    rows = [tools.random_row(n, seed=n) for n in (9, 5, 3)]
    (batch,) = dataclasses.replace(OBJECTIVE, targets=dataclasses.replace(OBJECTIVE.targets, skip=2)).batches(
        rows, PACKING
    )
    # A row of three tokens, all of them prefix, has nothing to predict.
    assert batch.row_positions == (6, 2)
    expected = [int(t) for row in rows[:2] for t in row.tokens[3:]]
    assert batch.targets.ids_PK[:, 0].tolist() == expected
    top = [int(row.head_ids[row.head_starts[p]]) for row in rows[:2] for p in range(2, len(row.tokens) - 1)]
    assert batch.targets.top_P.tolist() == top


def test_a_row_longer_than_the_student_reads_is_refused(tools: Any) -> None:
    with pytest.raises(TrainError, match="has 129 tokens; the student reads at most 128"):
        OBJECTIVE.batches([tools.random_row(129, seed=0)], PACKING)

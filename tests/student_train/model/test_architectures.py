"""Tests of the table of architectures: each cell is measured again, and a difference is an error or a refusal.

No counterpart: each architecture is loaded, packed, cut, adapted and trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.architectures import REFUSED, Findings, read_page, survey
from benchmarks.tiny_models import MODELS, VOCAB, build
from student_train.data.layout import choose_layout
from student_train.data.packing import Packing
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.model.head import find_logit_map
from student_train.objectives.base import LossScale
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer

FAST = (
    "llama",
    "gpt2:layer-scaled",
    "bloom",
    "gemma2",
    "qwen2:sliding",
    "qwen2_moe",
    "bert",
)


OBJECTIVE = SameTokenizer(
    loss_spec=LossSpec(divergence=None, ce_weight=1.0),
    targets=TargetSpec(vocab_size=VOCAB, target_kind="none"),
    max_row_tokens=256,
)
PACKING = Packing(micro_tokens=1000)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny models gain nothing from more


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
@pytest.mark.slow
def test_the_table_says_what_is_measured(name: str) -> None:
    # `survey` raises for a result that is silently different.
    assert kinds(survey(name)) == kinds(dataclasses.replace(read_page()[name], vllm=""))


TRAINED = [name for name in MODELS if name not in ("bert", "xlnet", "modernbert-decoder")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in TRAINED])
def test_a_packed_step_has_the_loss_and_the_gradient_of_the_models_own_logits(tools: Any, name: str) -> None:
    model = build(name)
    layout = choose_layout(model)
    packing = dataclasses.replace(PACKING, layout=layout.name, widest=layout.widest)
    rows = [tools.random_row(length, seed=length, vocab=VOCAB, first_id=8) for length in (48, 33, 20, 7)]
    distiller = Distiller(model, OBJECTIVE, dtype="float32", layout=layout.name, logit_map=find_logit_map(model))
    losses = []
    for batch in OBJECTIVE.batches(rows, packing):
        out = distiller(batch, LossScale(weights={"ce": 1.0}, totals={"ce": 1}))
        out.loss.backward()
        losses.append(out.terms["ce"])
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    own = []
    for row in rows:
        ids = torch.from_numpy(row.tokens.astype(np.int64))
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
        own.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
        own[-1].sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(torch.cat(losses), torch.cat(own).detach(), rtol=1e-3, atol=1e-3)
    assert float((found - expected).norm()) <= 1e-2 * float(expected.norm())


def test_the_table_has_a_row_for_each_architecture() -> None:
    assert list(read_page()) == list(MODELS)
    assert len({name.split(":")[0] for name in MODELS}) >= 45


def kinds(found: Findings) -> tuple[str, ...]:
    """Return the cells of a row; of a refusal only that it is one, as its numbers depend on the machine."""
    return tuple(REFUSED if cell.startswith(REFUSED) else cell for cell in dataclasses.astuple(found))

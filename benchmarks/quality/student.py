"""Train a student on one record for one pass and score it exactly on held-out documents.

At each seed all methods share the initial weights and the order of the windows; one window is one step. The losses are
those of the product (`student_train.losses.fused_linear`), except `full`, the plain dense divergence that they
estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.quality.plan import Method, Run
from benchmarks.quality.teacher import Taught
from shards.format.chunk import Chunk
from student_train.config import Config
from student_train.losses.blockwise import Projection
from student_train.losses.divergences import target_kind
from student_train.losses.fused_linear import LossSpec, fused_loss
from student_train.losses.targets import Targets, TargetSpec, targets_of
from student_train.training.optimizer import learning_rate, make_optimizer
from teacher_dump.tasks.windowing import Window

HIDDEN = 128
LAYERS = 4
SCORED = 2
"""Every second position of the held-out windows is scored."""


def fresh(teacher_weight: torch.Tensor, seed: int) -> Any:
    """Return a small Llama whose tied embeddings are the teacher's, projected to their first principal components."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(teacher_weight),
            hidden_size=HIDDEN,
            intermediate_size=352,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    )
    centred = teacher_weight - teacher_weight.mean(0)
    _, vectors = torch.linalg.eigh(centred.t() @ centred)
    projected = centred @ vectors[:, -HIDDEN:]
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(projected * (0.02 / projected.square().mean().sqrt()))
    return model


def train(run: Run, taught: Taught, rows: list[Chunk], tell: Callable[[str], None]) -> Any:
    """Return a student after one pass over the windows; `rows` are their records."""
    method, seed = run.method, run.seed
    model = fresh(taught.weight, seed)
    config = Config(learning_rate=run.setting.peak, adam_eps=run.setting.eps)
    optimizer = make_optimizer(model, config)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(rows))
    weight = model.get_output_embeddings().weight
    spec = LossSpec(divergence=method.divergence, ce_weight=0.0 if method.divergence else 1.0)
    began, seen, recent = time.time(), 0, 0.0
    for step, i in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step=step, total=len(order))
        hidden_PH = _hidden(model, taught.windows[i])
        if method.divergence == "full":
            loss = _dense(hidden_PH, weight, taught.logits(int(i))) / len(hidden_PH)
        else:
            loss = fused_loss(
                hidden_PH,
                Projection(weight, compute_dtype=torch.bfloat16),
                index_P=torch.arange(len(hidden_PH)),
                targets=_targets(method, rows[i]),
                spec=spec,
                scale=1.0 / len(hidden_PH),
            ).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        seen += len(hidden_PH)
        recent += float(loss.detach())
        if step % 50 == 49:
            tell(f"  step {step + 1} loss {recent / 50:.3f}, {seen / (time.time() - began):.0f} tokens/s")
            recent = 0.0
    return model


def _targets(method: Method, row: Chunk) -> Targets:
    objective = "kd" if method.divergence else "sft"
    kind = target_kind(objective, method.divergence or "")
    return targets_of([row], TargetSpec(vocab_size=2**24, target_kind=kind))


def _hidden(model: Any, window: Window) -> torch.Tensor:
    tokens = torch.from_numpy(window.tokens[None, :-1].astype(np.int64))
    hidden: torch.Tensor = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[0]
    return hidden


def _dense(hidden_PH: torch.Tensor, weight_VH: torch.Tensor, teacher_PV: torch.Tensor) -> torch.Tensor:
    """Return the sum over positions of the cross-entropy to the teacher's full distribution: KL and a constant."""
    logits_PV = (hidden_PH.bfloat16() @ weight_VH.bfloat16().t()).float()
    return functional.cross_entropy(logits_PV, teacher_PV.softmax(1), reduction="sum")


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Scores of one held-out window."""

    document: str
    """sha256 of the document, hex."""
    positions: int
    kl_sum: float
    """Sum of KL(teacher || student), nats."""
    nll_sum: float
    """Sum of the negative log-probability of the labels, nats."""
    same_sum: int
    """Positions where both models have the same most likely token."""
    bins: list[list[float]]
    """For each of ten ranges of confidence (the student's largest probability): positions, sum of confidence, hits."""


def score(model: Any, held: Taught) -> list[Score]:
    """Return exact scores of every SCORED-th position of each held-out window, all in float32."""
    with torch.no_grad():
        return _scores(model, held)


def _scores(model: Any, held: Taught) -> list[Score]:
    weight = model.get_output_embeddings().weight
    found = []
    for window, hidden_PH in zip(held.windows, held.hidden, strict=True):
        next_P = torch.from_numpy(window.tokens[1:].astype(np.int64))[::SCORED]
        teacher_PV = hidden_PH[::SCORED] @ held.weight.t()
        student_PV = _hidden(model, window)[::SCORED] @ weight.t()
        same_P = student_PV.argmax(1) == teacher_PV.argmax(1)
        student_PV -= student_PV.logsumexp(1, keepdim=True)
        teacher_PV -= teacher_PV.logsumexp(1, keepdim=True)
        confidence_P, best_P = student_PV.max(1)
        nll_P = -student_PV.gather(1, next_P[:, None])[:, 0]
        kl_P = torch.linalg.vecdot(teacher_PV.exp(), teacher_PV.sub_(student_PV))
        found.append(
            Score(
                document=window.info.document,
                positions=len(next_P),
                kl_sum=float(kl_P.double().sum()),
                nll_sum=float(nll_P.double().sum()),
                same_sum=int(same_P.sum()),
                bins=_bins(confidence_P.exp(), best_P == next_P),
            )
        )
    return found


def _bins(confidence_P: torch.Tensor, hit_P: torch.Tensor) -> list[list[float]]:
    """Return positions, sum of confidence and hits for each of ten ranges of confidence."""
    place_P = (confidence_P * 10).long().clamp_max(9)
    parts = (torch.ones_like(confidence_P), confidence_P, hit_P.float())
    bins: list[list[float]] = torch.stack([torch.bincount(place_P, part.double(), 10) for part in parts], 1).tolist()
    return bins

"""Tests of the choice of a layout: packed rows equal rows alone, or none share a sequence."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from student_train.data.layout import choose_layout
from student_train.data.loader import require_context
from student_train.data.packing import Packing, groups
from student_train.errors import StudentError, TrainError
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.model.head import find_logit_map
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from tests.student_train.conftest import SIZES

OBJECTIVE = SameTokenizer(
    loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.3),
    targets=TargetSpec(vocab_size=60, target_kind="linear"),
    max_row_tokens=128,
)
PACKING = Packing(micro_tokens=1000)
LOCAL = ["sliding_attention", "full_attention"]
ARCHITECTURES: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({}, "mask"),
    "falcon": ({"alibi": True, "new_decoder_architecture": False}, "padded"),
    "mistral": ({"sliding_window": 8}, "positions"),
    "gemma3_text": ({"sliding_window": 8, "head_dim": 8, "layer_types": LOCAL}, "positions"),
    "qwen2": ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "positions"),
    "gpt_oss": ({"sliding_window": 8, "head_dim": 8, "layer_types": LOCAL, "num_local_experts": 4}, "masks"),
    "mpt": ({}, "masks"),
    "bloom": ({}, "padded"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "padded"),
    "llama4_text": ({"attention_chunk_size": 8, "head_dim": 8, "num_local_experts": 2}, "padded"),
    "mamba": ({"state_size": 8}, "padded"),
    "recurrent_gemma": ({"attention_window_size": 8, "block_types": ["recurrent", "attention"]}, "padded"),
}


def model_of(kind: str, **settings: Any) -> Any:
    config = CONFIG_MAPPING[kind]()
    known = {name: value for name, value in SIZES.items() if hasattr(config, name)}
    if kind == "mpt":
        settings = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}
        known = {"vocab_size": 60, "initializer_range": 0.3}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**known, **settings})).eval()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_scores_of_packed_rows_are_those_of_the_model_on_each_row_alone(tools: Any, kind: str) -> None:
    settings, expected = ARCHITECTURES[kind]
    model = model_of(kind, **settings)
    layout = choose_layout(model)
    assert layout.name == expected
    assert bool(layout.reason) == (expected == "padded")
    distiller = Distiller(
        model,
        OBJECTIVE,
        dtype="float32",
        layout=layout.name,
        logit_map=find_logit_map(model),
    )
    rows = [tools.random_row(length, seed=length) for length in (33, 21, 12, 9)]
    packing = dataclasses.replace(PACKING, layout=layout.name, widest=layout.widest)
    scores = torch.cat([distiller(batch, None).nll_P for batch in OBJECTIVE.batches(rows, packing)])
    alone = []
    for row in rows:
        ids = torch.from_numpy(row.tokens.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        alone.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
    torch.testing.assert_close(scores, torch.cat(alone), rtol=1e-3, atol=1e-3)


def test_one_mask_would_change_a_model_with_sliding_windows(tools: Any) -> None:
    # What the layout protects from: without it this test's rows are off by more than a tenth of a nat.
    model = model_of("mistral", sliding_window=8)
    rows = [tools.random_row(length, seed=length) for length in (33, 21)]
    wrong = Distiller(model, OBJECTIVE, dtype="float32", layout="mask")
    right = Distiller(model, OBJECTIVE, dtype="float32", layout="positions")
    found, expected = (
        torch.cat(
            [
                one(batch, None).nll_P
                for batch in OBJECTIVE.batches(rows, dataclasses.replace(PACKING, layout=one.layout))
            ]
        )
        for one in (wrong, right)
    )
    assert float((found - expected).abs().mean()) > 0.1


def test_windows_of_thousands_of_tokens_are_noticed_by_short_rows() -> None:
    model = model_of("mistral", sliding_window=4096)
    assert choose_layout(model).name == "positions"
    assert model.config.sliding_window == 4096


def test_windows_that_no_row_reaches_keep_the_one_mask() -> None:
    model = model_of("mistral", sliding_window=4096)
    assert choose_layout(model, longest=4096).name == "mask"
    assert choose_layout(model, longest=4097).name == "positions"


def test_a_model_that_reads_what_follows_is_refused() -> None:
    model = model_of("bert", is_decoder=False)
    with pytest.raises(StudentError, match=r"BertLMHeadModel whose hidden states change with the tokens that follow"):
        choose_layout(model)


def test_rows_share_a_forward_pass_only_where_their_lengths_do_not_change_positions() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    settings = {"rope_parameters": rope, "original_max_position_embeddings": 64, "max_position_embeddings": 256}
    model = model_of("phi3", sliding_window=None, **settings)
    assert choose_layout(model, longest=65).name == "single"
    assert choose_layout(model, longest=64).name != "single"
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    convolutional = model_of("lfm2", layer_types=["conv", "full_attention"], rope_parameters=dynamic)
    assert choose_layout(convolutional, longest=10**6).name == "single"
    assert choose_layout(convolutional, longest=64).name == "padded"
    assert groups([5, 3], Packing(micro_tokens=100, layout="single")) == [slice(0, 1), slice(1, 2)]


def test_padding_counts_where_each_row_has_a_sequence() -> None:
    lengths = [50, 10, 10, 10, 50, 50]
    assert groups(lengths, Packing(micro_tokens=150, layout="padded")) == [slice(0, 3), slice(3, 6)]
    assert groups(lengths, Packing(micro_tokens=150)) == [slice(0, 5), slice(5, 6)]


def test_shared_sequences_keep_to_the_width_that_a_model_has_masks_for(tools: Any) -> None:
    config = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
    model = model_of("gpt_neo", **config, max_position_embeddings=64, window_size=8)
    layout = choose_layout(model)
    assert layout.widest == 64
    rows = [tools.random_row(length, seed=length) for length in (40, 24, 23, 20, 19)]
    (batch,) = OBJECTIVE.batches(rows, dataclasses.replace(PACKING, layout=layout.name, widest=layout.widest))
    assert batch.tokens_BT.shape[1] <= 64


def test_the_first_row_that_a_student_cannot_read_is_named_before_training(tools: Any) -> None:
    cache = [tools.random_row(20, seed=0), tools.random_row(129, seed=7)]
    with pytest.raises(TrainError, match=r"window 0 has 129 tokens; .* at most 128; .* --window-tokens 128"):
        require_context(cache, max_row_tokens=128, window_tokens=1024)
    require_context(cache, max_row_tokens=129, window_tokens=1024)
    require_context(cache, max_row_tokens=128, window_tokens=128)

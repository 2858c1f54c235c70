"""Records of the transformers engine hold the model's own logits, or the model is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from shards.format.chunk import RowInfo
from shards.format.schema import Layout
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.blockwise_logits import BlockwiseLogits
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.engines.records import RecordSpec, draw_offsets, to_row
from teacher_dump.errors import DumpError
from teacher_dump.fidelity.differences import compare_with_exact
from teacher_dump.fidelity.reference import Reference
from teacher_dump.fidelity.views import ExactDistribution, RecordView
from teacher_dump.tasks.windowing import Window

IDS, PADDED = 250, 256
SPEC = RecordSpec()
LAYOUT = Layout(vocab_size=IDS, temperatures=SPEC.temperatures, threshold=SPEC.threshold, tail_floor=SPEC.tail_floor)
SIZE: dict[str, Any] = {
    "vocab_size": PADDED,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GQA = {**SIZE, "num_key_value_heads": 1, "head_dim": 16}
GPT: dict[str, Any] = {"vocab_size": PADDED, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}

CAUSAL: dict[str, Callable[[], Any]] = {
    "plain": lambda: hf.LlamaConfig(**GQA),
    "soft-capped": lambda: hf.Gemma2Config(**GQA, final_logit_softcapping=2.0, sliding_window=16),
    "divided": lambda: hf.GraniteConfig(**GQA, logits_scaling=6.0),
    "multiplied": lambda: hf.CohereConfig(**GQA, logit_scale=0.1),
    "scaled and hybrid": lambda: hf.FalconH1Config(
        **GQA, lm_head_multiplier=0.3, mamba_d_ssm=32, mamba_n_heads=2, mamba_d_head=16, mamba_d_state=8,
        mamba_chunk_size=16,
    ),
    "a bias": lambda: hf.GPTJConfig(**GPT, rotary_dim=8),
    "a transform": lambda: hf.BertConfig(**SIZE, is_decoder=True),
    "a narrow embedding": lambda: hf.OPTConfig(
        vocab_size=PADDED, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, word_embed_proj_dim=16, init_std=0.4, pad_token_id=0,
    ),
    "a wrapped decoder": lambda: hf.BartConfig(
        vocab_size=PADDED, d_model=32, decoder_layers=2, decoder_ffn_dim=48, decoder_attention_heads=2,
        max_position_embeddings=128, is_decoder=True, is_encoder_decoder=False, init_std=0.4, pad_token_id=0,
    ),
    "recurrent and capped": lambda: hf.RecurrentGemmaConfig(
        **{**GQA, "num_hidden_layers": 3}, lru_width=32, attention_window_size=16, logits_soft_cap=2.0
    ),
    "a state space": lambda: hf.MambaConfig(vocab_size=PADDED, hidden_size=32, num_hidden_layers=2, state_size=8),
    "experts": lambda: hf.MixtralConfig(**GQA, num_local_experts=4, num_experts_per_tok=2),
    "alibi": lambda: hf.BloomConfig(vocab_size=PADDED, hidden_size=32, n_layer=2, n_head=2),
}  # fmt: skip


def saved(config: Any, folder: Path, kind: Any = hf.AutoModelForCausalLM) -> Path:
    """Save a random model all of whose parameters have an effect."""
    torch.manual_seed(0)
    model = kind.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def engine_config(folder: Path, **more: Any) -> EngineConfig:
    return EngineConfig(
        **{
            "folder": folder,
            "vocab_size": IDS,
            "spec": SPEC,
            "seed": 0,
            "dtype": "float32",
            "window_tokens": 96,
            "tensor_parallel_size": 1,
            "whitespace_ids": (5, 6),
            **more,
        }
    )


def windows(*lengths: int) -> list[Window]:
    random = np.random.default_rng(1)
    return [
        Window(
            info=RowInfo(document=f"{i:064x}", window=0, byte_start=0, byte_end=0, source="", path="", licence=""),
            tokens=random.integers(10, IDS, length).astype(np.int32),
        )
        for i, length in enumerate(lengths)
    ]


def steps_off(folder: Path, window: Window, packed: Any) -> float:
    """Return the largest distance of records from the plain forward in float64, in steps of the format."""
    model = hf.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, experts_implementation="eager", attn_implementation="eager"
    ).eval()
    ids = torch.from_numpy(window.tokens).long()[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1, :IDS]
    next_ids = window.tokens[1:].astype(np.int64)
    white = torch.from_numpy(engine_config(folder).whitespace_mask())
    exact = ExactDistribution.from_logits(logits, next_ids, SPEC.temperatures, white)
    u = draw_offsets(window.info.document, 0, 0, len(next_ids))
    said = RecordView.from_row(to_row(window, packed, SPEC))
    apart = compare_with_exact(said, exact, labels=next_ids, offsets=u, layout=LAYOUT)
    return max(float(d.steps.max(initial=0)) for d in apart.values())


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.slow
def test_records_are_those_of_the_models_own_logits(name: str, tmp_path: Path) -> None:
    folder = saved(CAUSAL[name](), tmp_path)
    engine = TransformersEngine(engine_config(folder))
    assert engine._logits._body is not None  # in blocks, so that memory is bounded
    rows = windows(96, 41)
    alone = list(engine.capture(rows))
    assert [steps_off(folder, w, p) < 0.5 for w, p in zip(rows, alone, strict=True)] == [True, True]
    if engine._logits.is_ragged:  # as on a GPU
        for window, packed in zip(rows, engine._forward(rows), strict=True):
            assert steps_off(folder, window, packed) < 0.5


def test_bfloat16_records_are_those_of_the_models_own_logits(tmp_path: Path) -> None:
    folder = saved(CAUSAL["soft-capped"](), tmp_path)
    (window,) = windows(60)
    (packed,) = TransformersEngine(engine_config(folder, dtype="bfloat16")).capture([window])
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(window.tokens).long()[None]).logits[0, :-1, :IDS].float()
    row = to_row(window, packed, SPEC)
    log_p = logits.log_softmax(1)[torch.arange(59), torch.from_numpy(window.tokens[1:]).long()]
    assert np.abs(row.label_logp - log_p.numpy()).max() < 0.02


def test_logits_are_computed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(CAUSAL["soft-capped"](), tmp_path)
    engine = TransformersEngine(engine_config(folder))
    monkeypatch.setattr("teacher_dump.engines.records.LOGITS_BYTES", 4 * IDS * 10)
    seen: list[int] = []
    engine._logits._model.lm_head.register_forward_hook(lambda module, given, output: seen.append(output.shape[1]))
    (window,) = windows(96)
    (packed,) = engine.capture([window])
    assert max(seen) == 10
    assert sum(seen) == 95
    assert steps_off(folder, window, packed) < 0.5


def test_a_model_that_cannot_run_in_blocks_runs_whole_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(CAUSAL["divided"](), tmp_path)
    monkeypatch.setattr("teacher_dump.engines.blockwise_logits._bodies", lambda model: iter(()))
    (window,) = windows(96)
    (packed,) = TransformersEngine(engine_config(folder)).capture([window])
    assert steps_off(folder, window, packed) < 0.5
    monkeypatch.setattr("teacher_dump.engines.blockwise_logits.WHOLE_BYTES", 4 * IDS * 50)
    with pytest.raises(DumpError, match=r"GraniteForCausalLM gives its logits only for whole rows.*--window-tokens 50"):
        TransformersEngine(engine_config(folder))


def test_a_body_that_is_not_what_the_head_reads_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(CAUSAL["plain"](), tmp_path)
    # Its output has the right shape, but another layer follows.
    monkeypatch.setattr("teacher_dump.engines.blockwise_logits._bodies", lambda model: iter((model.model.layers[0],)))
    engine = TransformersEngine(engine_config(folder))
    assert engine._logits._body is None
    (window,) = windows(96)
    (packed,) = engine.capture([window])
    assert steps_off(folder, window, packed) < 0.5


REFUSED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "a masked LM": (
        lambda: hf.BertConfig(**SIZE), hf.AutoModelForMaskedLM, r"change logits before them.*it is not causal",
    ),
    "an encoder-decoder": (
        lambda: hf.T5Config(vocab_size=PADDED, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2),
        hf.AutoModelForSeq2SeqLM,
        r"found an encoder-decoder \(t5\), expected a causal",
    ),
    "a body without its head": (
        lambda: hf.LlamaConfig(**GQA), hf.AutoModel, r"1 weights of a LlamaForCausalLM are not in its files \(lm_head",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_causal_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    config, kind, said = REFUSED[name]
    folder = saved(config(), tmp_path, kind)
    with pytest.raises(DumpError, match=said) as caught:
        TransformersEngine(engine_config(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


class Peeking(torch.nn.Module):
    """Wraps a model so that every logit depends a little on the last token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config, self.model, self.base_model = model.config, model, model.base_model

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        output = self.model(input_ids=input_ids, use_cache=use_cache)
        output.logits = output.logits * (1 + 0.01 * (input_ids[:, -1:, None] % 7))
        return output


def test_a_model_that_peeks_at_later_tokens_a_little_is_refused(tmp_path: Path) -> None:
    model = hf.AutoModelForCausalLM.from_pretrained(saved(CAUSAL["plain"](), tmp_path)).eval()
    with pytest.raises(DumpError, match="it is not causal"):
        BlockwiseLogits(Peeking(model), vocab_size=IDS, window_tokens=96, name=tmp_path)


def test_a_model_with_fewer_embeddings_than_ids_or_with_nan_is_refused(tmp_path: Path) -> None:
    folder = saved(CAUSAL["plain"](), tmp_path / "a")
    with pytest.raises(DumpError, match=r"LlamaForCausalLM fails on 48 ids below 3,000 \(IndexError"):
        TransformersEngine(engine_config(folder, vocab_size=3000))
    model = hf.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    model.save_pretrained(tmp_path / "b")
    with pytest.raises(DumpError, match="found logits that are not finite"):
        TransformersEngine(engine_config(tmp_path / "b"))


def test_the_reference_computes_experts_in_float64(tmp_path: Path) -> None:
    folder = saved(CAUSAL["experts"](), tmp_path)
    (window,) = windows(40)
    reference = Reference(folder, vocab_size=IDS, parameters=1, dtype="float64")
    logits = torch.cat(list(reference.logits(window)))
    assert logits.dtype == torch.float64
    (packed,) = TransformersEngine(engine_config(folder)).capture([window])
    assert steps_off(folder, window, packed) < 0.5


def test_a_multimodal_model_is_used_with_text_alone(tmp_path: Path) -> None:
    text = hf.Gemma3TextConfig(**GQA, sliding_window=16).to_dict()
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    config = hf.Gemma3Config(text_config=text, vision_config=vision, image_token_index=9, mm_tokens_per_image=4)
    folder = saved(config, tmp_path, hf.AutoModelForImageTextToText)
    assert "text_config" in json.loads((folder / "config.json").read_text())
    (window,) = windows(60)
    (packed,) = TransformersEngine(engine_config(folder)).capture([window])
    assert steps_off(folder, window, packed) < 0.5

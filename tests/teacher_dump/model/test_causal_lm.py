"""Tests of loading: the model's own arithmetic, and errors of damaged checkpoints that name the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import load


@pytest.mark.parametrize("content", [b"x", b"", b"PK\x03\x04" + bytes(60)])
def test_a_damaged_pytorch_checkpoint_is_an_error_that_names_its_folder(teacher: Path, content: bytes) -> None:
    (teacher / "model.safetensors").unlink()
    (teacher / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DumpError, match=f"^{teacher}: transformers cannot load it as a causal language model"):
        load(teacher, dtype="float32")


def test_scores_of_attention_are_capped(tmp_path: Path) -> None:
    """transformers' default attention ignores the cap of Gemma 2."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "initializer_range": 0.4}
    model = Gemma2ForCausalLM(Gemma2Config(**size, **heads, attn_logit_softcapping=2.0)).eval()
    model.save_pretrained(tmp_path)
    ids = torch.randint(64, (1, 30))
    logits = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        logits[implementation] = model(input_ids=ids).logits
    assert (logits["eager"] - logits["sdpa"]).abs().max() > 0.1
    torch.testing.assert_close(load(tmp_path, dtype="float32")(input_ids=ids).logits, logits["eager"])

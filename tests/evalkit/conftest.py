"""Fixtures of the evalkit tests: a tiny checkpoint, a sandbox, HumanEval, and data outside the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tasks.registry import load

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request) -> None:
    """Keep verdicts of tests out of the user's cache; one cache per test file."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{request.module.__name__}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no test reaches for the network


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    with Pool(workers=2) as checkers:
        yield checkers


@pytest.fixture(scope="session")
def humaneval() -> Benchmark:
    return load("humaneval")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Reference data that is not part of the repository: $TEACHERLESS_DATA, or ../shared/data beside it."""
    folder = Path(os.environ.get("TEACHERLESS_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mbpp" / "mbpp.jsonl").is_file():
        pytest.skip("no shared data: set TEACHERLESS_DATA to the folder that holds mbpp/ and evalplus/")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, humaneval: Benchmark) -> Path:
    """A random two-layer Llama with a byte-level BPE tokenizer, saved as an ordinary transformers folder."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator((problem.reference for problem in humaneval.problems), trainer)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        eos_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder

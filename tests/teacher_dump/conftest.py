"""A tiny teacher with a real byte-level tokenizer, and a small corpus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PADDED_VOCAB = 416
"""Rows of the tiny teacher's embedding: more than its tokenizer has ids."""

SOURCES = {
    "greet.py": 'def greet(name):\n    """Say hello."""\n    return f"hello {name}"\n\n\nprint(greet("world"))\n' * 12,
    "folder/numbers.py": "total = 0\nfor i in range(10):\n    total += i\n\nprint(total)\n" * 15,
    "accents.py": "# caf\u00e9 \u2713 \U0001f600\nname = '\u00fc'\n" * 20,
}


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of Python sources, some of which a filter drops."""
    root = tmp_path_factory.mktemp("corpus")
    for name, text in SOURCES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "copy.py").write_text(SOURCES["greet.py"])
    (root / "blank.py").write_text("\n \n")
    (root / "latin1.py").write_bytes(b"# caf\xe9\n")
    return root


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a transformers folder: a random Llama of two layers, and a byte-level BPE tokenizer of 400 ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("teacher")
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(SOURCES.values(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PADDED_VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32 dimensions each, the least that vLLM's CPU attention takes
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def teacher(tiny_teacher: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny teacher that a test may change."""
    return Path(shutil.copytree(tiny_teacher, tmp_path / "a" / "sharp"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    return

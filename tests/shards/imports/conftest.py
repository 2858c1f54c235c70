"""Teachers of a few ids, their stored top-k log-probabilities, and files of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

VOCAB = 300
END, PAD = 256, 257


@dataclass(frozen=True, kw_only=True)
class TopK:
    """A row of n tokens as a tool would store it: k entries at each of n - 1 positions, by falling probability."""

    tokens: np.ndarray
    ids: np.ndarray
    logprobs: np.ndarray
    full: np.ndarray
    """[n - 1, V] the whole distributions."""


def make_top_k(rng: np.random.Generator, *, length: int, k: int = 8, vocab: int = VOCAB) -> TopK:
    logits = rng.normal(0, 3.0, (length - 1, vocab))
    full = np.exp(logits - logits.max(1, keepdims=True))
    full /= full.sum(1, keepdims=True)
    ids = np.argsort(-full, axis=1)[:, :k]
    labels = [rng.choice(vocab, p=p) for p in full]
    tokens = np.array([END, *labels])
    tokens[1:] = np.where(tokens[1:] == PAD, 0, tokens[1:])
    return TopK(tokens=tokens, ids=ids, logprobs=np.log(np.take_along_axis(full, ids, 1)), full=full)


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows of lists; numpy arrays become lists."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{k: _plain(v) for k, v in row.items()} for row in rows]), file)
    return file


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def plain_row(row: TopK, **more: Any) -> dict[str, Any]:
    """Return a row of `top-k-parquet`."""
    return {"input_ids": row.tokens, "token_ids": row.ids, "logprobs": row.logprobs, **more}


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a byte-level tokenizer: a token for each byte, some pairs, an end and a padding token."""
    from shards.model_files.tokenizer import _byte_characters

    folder = tmp_path_factory.mktemp("tokenizer")
    characters = {byte: char for char, byte in _byte_characters().items()}
    vocab = {characters[b]: b for b in range(256)} | {
        f"{characters[65]}{characters[65 + i]}": 258 + i for i in range(42)
    }
    added = [{"id": i, "content": text, "special": True} for i, text in ((END, "<end>"), (PAD, "<pad>"))]
    rules = {
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel"},
        "normalizer": None,
        "added_tokens": added,
    }
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    config = {"bos_token": "<end>", "eos_token": {"content": "<end>"}, "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder

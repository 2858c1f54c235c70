"""Two teachers with different tokenizers that recorded the same short texts: caches for runs on both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shards.format.chunk import Chunk

TEXTS = tuple(f"def f{i}(x, y):\n    return x * {i} + y\n\n\nclass C{i}:\n    value = {i * 7}\n" for i in range(30))
"""Texts of the rows, one document each."""


@dataclass(frozen=True, kw_only=True)
class TwoTeachers:
    """A cache of the world's teacher and one of a teacher with another tokenizer."""

    same: Path
    """Cache in the tokens of the world's teacher, which is the student of toy runs."""
    other: Path
    """Cache in other tokens, of every second text and longer rows."""
    other_tokenizer: Path
    """Folder of the other tokenizer."""


def write_two(root: Path, world: Any, tools: Any) -> TwoTeachers:
    """Write both caches under `root`."""
    other = root / "other-teacher"
    tools.train_tokenizer(other, vocab=330, text="class C1:\n    value = 70\n    return x * 3 + y\n" * 20)
    caches = {"same": (world.teacher_dir, world.vocab, TEXTS), "other": (other, 330, TEXTS[::2])}
    for name, (tokenizer, vocab, texts) in caches.items():
        teacher = "tiny-teacher" if name == "same" else "other-teacher"
        model = tools.llama(vocab=vocab, seed=len(name))
        rows = [_row(model, tokenizer, text, tools, number=i) for i, text in enumerate(texts)]
        tools.write_cache(root / name, rows, tokenizer, vocab=vocab, teacher=teacher)
    return TwoTeachers(same=root / "same", other=root / "other", other_tokenizer=other)


def _row(model: Any, tokenizer_dir: Path, text: str, tools: Any, *, number: int) -> Chunk:
    """Return a text as a row with the records of a model."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tokenizer_dir)(text)["input_ids"]
    tokens = np.array([0, *ids])
    with torch.no_grad():
        probs_PV = model(torch.from_numpy(tokens)[None]).logits[0, :-1].double().softmax(-1).numpy()
    rng = np.random.default_rng(number)
    found: Chunk = tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(number, size=len(text)))
    return found

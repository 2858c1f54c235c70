"""Two tokenizers of the two known families, trained here on Python, and rows of one for the other."""

from __future__ import annotations

import hashlib
import json
import shutil
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.format.chunk import Chunk, RowInfo
from student_train.cross_tokenizer.vocabulary import Vocabulary, load_vocabulary

REAL = Path(__file__).parents[4] / "shared" / "data" / "tokenizers"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/tokenizers")

TEXT = '''def greet(name):
    """Say hello to caf\u00e9 \u4e2d\u6587."""
    if name:
        for i in range(100):
            print(f"hello {name}", i, 1234)
        return True
    return None


class Greeter:
\tdef run(self):
\t\treturn greet(self.name)


import os
import sys
'''


def train_sentencepiece(folder: Path, *, vocab: int = 600, dummy: bool = True) -> None:
    """Write a tokenizer like Llama's: U+2581 for spaces, a dummy space first, byte fallback."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{b:02X}>" for b in range(256)]
    text = TEXT.replace("\n", " ").replace("\t", " ")
    scratch = Tokenizer(models.BPE())
    scratch.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=vocab - 259, show_progress=False, max_token_length=9)
    # Without a pre-tokenizer pieces run over words; train on words, as SentencePiece would.
    scratch.train_from_iterator(
        [w for w in text.replace("    ", " ").split(" ") if w] + [" " * 7, " " * 3] * 4, trainer
    )
    model = json.loads(scratch.to_str())["model"]
    pieces = [*specials, *fallback, *(p for p in sorted(model["vocab"], key=model["vocab"].__getitem__))]
    known = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=known, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("\u2581")] if dummy else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if dummy else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)


def train_byte_level(folder: Path, *, vocab: int = 420) -> None:
    """Write a tokenizer like Phi-2's: byte-level BPE, no BOS, added tokens for runs of spaces and tabs."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.add_tokens([AddedToken(" " * n, normalized=True) for n in range(16, 1, -1)])
    fast.add_tokens([AddedToken("\t" * n, normalized=True) for n in range(4, 1, -1)])
    fast.save_pretrained(folder)


def rows_of(
    text: str, teacher: Vocabulary, *, seed: int = 0, window: int = 64, sharpness: float = 3.0, whole: bool = False
) -> list[Chunk]:
    """Return the windows of a text with the records of a made-up teacher, whose distributions are random but peaked.

    With `whole`, the head holds every id.
    """
    raw, ids = text.encode(), teacher.encode([text])[0]
    ends = np.cumsum(teacher.lengths[ids]) - teacher.has_dummy
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(teacher.lengths > 0)
    found = []
    prefix = teacher.prefix or teacher.ends[:1]
    for begin in range(0, len(ids), window):
        tokens = np.array([*prefix, *ids[begin : begin + window]], dtype=np.int32)
        positions = len(tokens) - 1
        logits_PV = np.full((positions, len(teacher.strings)), -30.0)
        logits_PV[:, usable] = rng.normal(size=(positions, len(usable))) * sharpness
        logits_PV[np.arange(positions), tokens[1:]] += 4.0
        probs_PV = np.exp(logits_PV - logits_PV.max(1, keepdims=True))
        probs_PV /= probs_PV.sum(1, keepdims=True)
        end = min(begin + window, len(ids))
        info = RowInfo(
            document=hashlib.sha256(raw).hexdigest(),
            window=begin // window,
            byte_start=0 if begin == 0 else int(ends[begin - 1]),
            byte_end=int(ends[end - 1]),
            source="tests",
            path="x.py",
            licence="",
        )
        found.append(_chunk(tokens, probs_PV, teacher, info, rng, whole=whole))
    return found


def bare_rows(text: str, teacher: Vocabulary, *, window: int = 10**9) -> list[Chunk]:
    """Return the windows of a text with empty records."""
    raw, ids = text.encode(), teacher.encode([text])[0]
    ends = np.cumsum(teacher.lengths[ids]) - teacher.has_dummy
    prefix = teacher.prefix or teacher.ends[:1]
    found = []
    for begin in range(0, len(ids), window):
        tokens = np.array([*prefix, *ids[begin : begin + window]], dtype=np.int32)
        none, starts = np.zeros(len(tokens) - 1, dtype=np.float32), np.zeros(len(tokens), dtype=np.int64)
        info = RowInfo(
            document=hashlib.sha256(raw).hexdigest(),
            window=len(found),
            byte_start=0 if begin == 0 else int(ends[begin - 1]),
            byte_end=int(ends[min(begin + window, len(ids)) - 1]),
            source="tests",
            path="x.py",
            licence="",
        )
        found.append(
            Chunk(
                rows=(info,),
                row_starts=np.array([0, len(tokens)]),
                tokens=tokens,
                label_logp=none,
                head_starts=starts,
                head_ids=tokens[:0],
                head_probs=none[:0],
                tail_mass=none,
                draw_starts=starts,
                draw_ids=tokens[:0],
                log_z=none[:, None],
                whitespace_logp=none,
                entropy=none,
            )
        )
    return found


def _chunk(
    tokens: np.ndarray, probs_PV: np.ndarray, teacher: Vocabulary, info: RowInfo, rng: Any, *, whole: bool
) -> Chunk:
    P = len(probs_PV)
    heads, draws = [], []
    for p_V in probs_PV:
        order = np.argsort(-p_V, kind="stable")
        kept = order if whole else order[: max(1, int((p_V >= 0.04).sum()))]
        tail = 1.0 - p_V[kept].sum()
        rest = np.setdiff1d(np.arange(len(p_V)), kept)
        number = 0 if whole or tail < 2e-3 else int(np.ceil(tail / 0.04))
        heads.append(kept)
        draws.append(np.sort(rng.choice(rest, size=number, p=p_V[rest] / p_V[rest].sum())) if number else rest[:0])
    head_probs = [probs_PV[p][heads[p]] for p in range(P)]
    return Chunk(
        rows=(info,),
        row_starts=np.array([0, len(tokens)]),
        tokens=tokens,
        label_logp=np.log(probs_PV[np.arange(P), tokens[1:]]).astype(np.float32),
        head_starts=np.concatenate([[0], np.cumsum([len(h) for h in heads])]),
        head_ids=np.concatenate(heads).astype(np.int32),
        head_probs=np.concatenate(head_probs).astype(np.float32),
        tail_mass=np.array([max(0.0, 1.0 - h.sum()) for h in head_probs], dtype=np.float32),
        draw_starts=np.concatenate([[0], np.cumsum([len(d) for d in draws])]),
        draw_ids=np.concatenate(draws).astype(np.int32),
        log_z=np.zeros((P, 0), dtype=np.float32),
        whitespace_logp=np.log(probs_PV[:, teacher.white].sum(1)).astype(np.float32),
        entropy=-(probs_PV * np.log(np.maximum(probs_PV, 1e-300))).sum(1).astype(np.float32),
    )


def edited_tokenizer(folder: Path, out: Path, **changes: Any) -> Path:
    shutil.copytree(folder, out)
    data = json.loads((out / "tokenizer.json").read_text())
    for path, value in changes.items():
        node, *rest = path.split("__")
        target = data
        for part in (node, *rest[:-1]) if rest else ():
            target = target[part]
        target[rest[-1] if rest else node] = value(target[rest[-1] if rest else node])
    (out / "tokenizer.json").write_text(json.dumps(data))
    return out


TOKENIZERS = {
    "sentencepiece": train_sentencepiece,
    "plain": partial(train_sentencepiece, dummy=False),
    "byte-level": train_byte_level,
}
"""Writers of a tokenizer into a folder, by name; `plain` has no dummy space, like Gemma's."""
PAIRS = [("sentencepiece", "byte-level"), ("plain", "byte-level"), ("byte-level", "sentencepiece")]
"""Teacher's and student's tokenizers that are aligned."""
LOSS_PAIRS = [names for names in PAIRS if "plain" not in names]
"""Pairs that losses and gradients are computed for; a dummy space makes no difference to them."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of each of `TOKENIZERS`."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name, write in TOKENIZERS.items():
        write(root / name)
    return {name: root / name for name in TOKENIZERS}


@pytest.fixture(scope="session")
def vocabularies(folders: dict[str, Path]) -> dict[str, Vocabulary]:
    return {name: load_vocabulary(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def cross() -> Any:
    """The functions of this file: tests are imported by path, so they cannot import it."""
    return types.SimpleNamespace(rows_of=rows_of, bare_rows=bare_rows, text=TEXT)

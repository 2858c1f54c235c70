"""A teacher, a tokenizer and a cache small enough to know everything about them.

The teacher is a four-layer Llama with random weights; its records are made here, by the definition in science.md
1.4b, so that these tests depend on the format but not on the dump.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards.format.batch import Row
from shards.format.chunk import Chunk, RowInfo
from shards.format.manifest import FileEntry, Manifest, Teacher, Tokenizer
from shards.format.relations import RelationLayout, Relations, encode_relations
from shards.format.schema import Layout
from shards.model_files.tokenizer import TokenizerRules
from shards.write import ShardWriter

torch.set_num_threads(1)

TEMPERATURES = (2.0,)
TEACHER = "tiny-teacher"
WEIGHTS = "ab" * 32

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
"""Sizes of a tiny model, for configurations of any architecture."""


def llama(*, vocab: int, layers: int = 4, seed: int = 0, spread: float = 0.3, tied: bool = True) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=spread,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def train_tokenizer(folder: Path, *, vocab: int = 300, text: str = "def f(x):\n    return x + 1\n" * 20) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text, "".join(map(str, range(500)))], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")
    fast.save_pretrained(folder)


def info(document: int, window: int = 0, size: int = 1) -> RowInfo:
    return RowInfo(
        document=hashlib.sha256(f"document {document}".encode()).hexdigest(),
        window=window,
        byte_start=0,
        byte_end=size,
        source="tests",
        path=f"{document}.py",
        licence="Apache-2.0",
    )


@dataclass(frozen=True, kw_only=True)
class Records:
    """Sparse records of P positions, as lists."""

    head: list[np.ndarray]
    draws: list[np.ndarray]
    probs_PV: np.ndarray


def records(probs_PV: np.ndarray, *, rng: np.random.Generator, threshold: float = 0.04, floor: float = 2e-3) -> Records:
    """Return threshold heads and systematic draws of full distributions (science.md 1.4b)."""
    head, draws = [], []
    for p_V in probs_PV:
        order = np.argsort(-p_V, kind="stable")
        kept = order[: max(1, int((p_V >= threshold).sum()))]
        tail = 1.0 - p_V[kept].sum()
        number = 0 if tail < floor else int(np.ceil(tail / threshold))
        rest = np.setdiff1d(np.arange(len(p_V)), kept)
        cumulative = np.cumsum(p_V[rest])
        points = (rng.random() + np.arange(number)) / max(number, 1) * cumulative[-1] if number else []
        drawn = rest[np.minimum(np.searchsorted(cumulative, points, side="right"), len(rest) - 1)]
        head.append(kept)
        draws.append(np.sort(drawn))
    return Records(head=head, draws=draws, probs_PV=probs_PV)


def chunk_of(tokens: np.ndarray, found: Records, where: RowInfo) -> Chunk:
    """Return one row as a chunk, without quantisation."""
    probs_PV = found.probs_PV
    P = len(probs_PV)
    head_probs = [probs_PV[p][found.head[p]] for p in range(P)]
    inverse = np.array([1.0 / t for t in TEMPERATURES])
    return Chunk(
        rows=(where,),
        row_starts=np.array([0, len(tokens)]),
        tokens=tokens.astype(np.int32),
        label_logp=np.log(probs_PV[np.arange(P), tokens[where.context :]]).astype(np.float32),
        head_starts=np.concatenate([[0], np.cumsum([len(h) for h in found.head])]),
        head_ids=np.concatenate(found.head).astype(np.int32),
        head_probs=np.concatenate(head_probs).astype(np.float32),
        tail_mass=np.array([1.0 - h.sum() for h in head_probs], dtype=np.float32),
        draw_starts=np.concatenate([[0], np.cumsum([len(d) for d in found.draws])]),
        draw_ids=np.concatenate(found.draws).astype(np.int32),
        log_z=np.log((probs_PV[:, :, None] ** inverse).sum(1)).astype(np.float32),
        whitespace_logp=np.zeros(P, dtype=np.float32),
        entropy=-(probs_PV * np.log(np.maximum(probs_PV, 1e-300))).sum(1).astype(np.float32),
    )


def random_row(length: int, *, seed: int = 0, vocab: int = 60, first_id: int = 0) -> Chunk:
    """Return a row of random tokens, at least `first_id`, with the records of random distributions."""
    rng = np.random.default_rng(seed)
    probs_PV = rng.dirichlet(np.full(vocab, 0.1), size=length - 1) + 1e-9
    probs_PV /= probs_PV.sum(1, keepdims=True)
    tokens = rng.integers(first_id, vocab, size=length)
    return chunk_of(tokens, records(probs_PV, rng=rng), info(seed))


def row_of(chunk: Chunk) -> Row:
    return Row(
        info=chunk.rows[0],
        tokens=chunk.tokens,
        head_count=np.diff(chunk.head_starts),
        head_ids=chunk.head_ids,
        head_probs=chunk.head_probs,
        draw_count=np.diff(chunk.draw_starts),
        draw_ids=chunk.draw_ids,
        label_logp=chunk.label_logp,
        whitespace_logp=chunk.whitespace_logp,
        entropy=chunk.entropy,
        log_z=chunk.log_z,
        relations=None if chunk.relations is None else flat_vectors(chunk.relations),
    )


def flat_vectors(relations: Relations) -> np.ndarray | None:
    """Return the vectors of one row, [P, C]; None where it has none."""
    kinds = relations.vectors()
    return np.concatenate([kind.reshape(len(kind), -1) for kind in kinds], 1) if len(kinds[0]) else None


def layer_vectors(model: Any, tokens: np.ndarray, layer: int) -> list[np.ndarray]:
    """Return the queries, keys and values [T, W] of a layer of a Llama, by its own matrices."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        block = model.model.layers[layer]
        normed = block.input_layernorm(states)
        return [getattr(block.self_attn, f"{name}_proj")(normed).numpy() for name in "qkv"]


def with_relations(row: Chunk, layout: RelationLayout, vectors: list[np.ndarray] | None) -> Chunk:
    """Return a row with stored vectors of its positions, given as [T, A w] by kind; None stores none."""
    count = 0 if vectors is None else len(row.entropy)
    first = row.rows[0].context - 1
    kinds = [kind[first : first + count] for kind in vectors or ()]
    codes, scales = encode_relations(
        layout, np.concatenate(kinds, 1) if kinds else np.zeros((0, layout.numbers), np.float32)
    )
    relations = Relations(layout=layout, starts=np.array([0, count]), codes=codes, scales=scales)
    return replace(row, relations=relations)


def teacher_rows(
    model: Any, *, documents: int, vocab: int, seed: int, longest: int = 48, windows: int = 2
) -> list[Chunk]:
    """Return rows of text that the teacher itself wrote, with its records."""
    rng = np.random.default_rng(seed)
    found = []
    generator = torch.Generator().manual_seed(seed)
    for document in range(documents):
        for window in range(windows):
            length = int(rng.integers(8, longest))
            tokens = torch.zeros(1, 1, dtype=torch.long)
            with torch.no_grad():
                for _ in range(length):
                    p = model(tokens).logits[0, -1].softmax(-1)
                    tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)[None]], 1)
                probs_PV = model(tokens).logits[0, :-1].double().softmax(-1).numpy()
            where = info(document, window, size=3 * length)
            found.append(chunk_of(tokens[0].numpy(), records(probs_PV, rng=rng), where))
    return found


def write_cache(
    folder: Path,
    rows: list[Chunk],
    tokenizer_dir: Path,
    *,
    vocab: int,
    chunk_tokens: int = 400,
    teacher: str = TEACHER,
    repo: str = "",
    shards: int = 2,
    threshold: float = 0.04,
    version: int = 1,
    relations: RelationLayout | None = None,
    corpus: dict[str, Any] | None = None,
) -> Path:
    """Write `rows` as a complete cache of so many shards."""
    layout = Layout(
        vocab_size=vocab,
        temperatures=TEMPERATURES,
        threshold=threshold,
        tail_floor=2e-3,
        version=version,
        relations=relations,
    )
    print_ = TokenizerRules.load(tokenizer_dir).fingerprint()
    entries = []
    for n, part in enumerate(rows[i::shards] for i in range(shards)):
        name = f"shard-{n:05d}.arrow"
        with ShardWriter(
            folder, name, layout=layout, task=str(n), fingerprint=print_, chunk_tokens=chunk_tokens
        ) as writer:
            for row in part:
                writer.write(row_of(row))
            entries.append(writer.close())
    files = []
    (folder / "tokenizer").mkdir()
    for entry in sorted(tokenizer_dir.iterdir()):
        if entry.name.startswith(("tokenizer", "special", "chat_template")):
            raw = entry.read_bytes()
            (folder / "tokenizer" / entry.name).write_bytes(raw)
            digest = hashlib.sha256(raw).hexdigest()
            files.append(FileEntry(name=f"tokenizer/{entry.name}", bytes=len(raw), sha256=digest))
    manifest = Manifest(
        layout=layout,
        teacher=Teacher(
            name=teacher,
            repo=repo,
            revision="",
            weights_sha256=WEIGHTS,
            licence="Apache-2.0",
            restricts_outputs=False,
            vocab_size=vocab,
            parameters=1,
        ),
        tokenizer=Tokenizer(fingerprint=print_, vocab_size=vocab, prefix_tokens=(0,)),
        engine={},
        corpus=corpus or {},
        settings={"seed": 0},
        code={},
        files=tuple(files),
        shards=tuple(entries),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that the tests of a run need."""

    shards: Path
    teacher_dir: Path
    cache_dir: Path
    rows: list[Chunk]
    vocab: int


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from shards.storage.cache_dirs import model_dir

    root = tmp_path_factory.mktemp("world")
    patch = pytest.MonkeyPatch()
    patch.setenv("TEACHERLESS_CACHE", str(root / "cache"))
    folder = model_dir(TEACHER, WEIGHTS)
    patch.undo()
    folder.mkdir(parents=True)
    train_tokenizer(folder)
    vocab = 300
    model = llama(vocab=vocab)
    model.save_pretrained(folder)
    rows = teacher_rows(model, documents=24, vocab=vocab, seed=1)
    shards = write_cache(root / "shards", rows, folder, vocab=vocab)
    return World(shards=shards, teacher_dir=folder, cache_dir=root / "cache", rows=rows, vocab=vocab)


@pytest.fixture(scope="module", autouse=True)
def short_completions() -> Iterator[None]:
    """Runs complete their prompts with 2 tokens. That is a third of a toy run's time otherwise."""
    from student_train.evaluation import completions

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(completions.complete.__kwdefaults__, "max_new_tokens", 2)
        patch.setattr(completions, "MAX_ANSWER_TOKENS", 2)
        yield


@pytest.fixture
def at_home(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with its teacher where `teacher-dump` would have unpacked it."""
    monkeypatch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
    return world


@pytest.fixture(scope="module")
def student(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a student of two layers and the teacher's tokenizer."""
    folder = tmp_path_factory.mktemp("student")
    train_tokenizer(folder)
    llama(vocab=world.vocab, layers=2, seed=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tools() -> Any:
    """The functions of this file: tests are imported by path, so they cannot import it."""
    import types

    names = ("llama", "train_tokenizer", "info", "records", "chunk_of", "random_row", "teacher_rows", "write_cache")
    names += ("layer_vectors", "with_relations")
    return types.SimpleNamespace(**{name: globals()[name] for name in names})

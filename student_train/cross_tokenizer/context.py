"""Set-up for a student whose tokenizer differs from the teacher's: both vocabularies and how they correspond.

Reads only the shards and the student: the teacher's tokenizer is stored beside the shards, the student's in its folder.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import shards
from shards.format.chunk import Chunk
from shards.model_files.tokenizer import TokenizerRules
from student_train.config import Config
from student_train.cross_tokenizer.alignment import align
from student_train.cross_tokenizer.targets import TokenizerPair
from student_train.cross_tokenizer.terms import IdOrder
from student_train.cross_tokenizer.vocabulary import load_vocabulary
from student_train.errors import TrainError
from student_train.model.loading import Student


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossContext:
    """What joins a teacher and a student with two tokenizers."""

    tables: TokenizerPair
    """For training."""
    measured: TokenizerPair
    """For evaluation: always the head's cells, so that runs with other losses can be compared."""
    order: IdOrder
    """The student's ids, so that cells are ranges."""
    parts: tuple[str, ...]
    """Parts of the loss."""


def cross_of(config: Config, student: Student, cache: shards.Cache) -> CrossContext:
    """Return what joins the shards' teacher and `student`.

    Raises: TrainError for a setting that needs one tokenizer, StudentError for a tokenizer of no known family.
    """
    for name, plain in (("divergence", "forward-kl"), ("temperature", 1.0), ("specialist", ())):
        if config.objective == "kd" and getattr(config, name) != plain:
            raise TrainError(
                f"{name} is {getattr(config, name)}, which compares token by token; the student has another tokenizer "
                f"than the shards ({student.other_tokenizer}): leave it out, and choose with --across"
            )
    vocabulary = load_vocabulary(student.tokenizer_dir, vocab_size=student.vocab_size)
    table = TokenizerRules.load(cache.tokenizer_dir).token_bytes()
    strings = [table.get(i, b"") for i in range(cache.manifest.layout.vocab_size)]
    tables = TokenizerPair.of(strings, vocabulary, config.parts_across)
    return CrossContext(
        tables=tables,
        measured=tables.to_measure(),
        order=IdOrder.of(vocabulary, tables.roots),
        parts=config.parts_across,
    )


def readable(rows: list[Chunk], cross: CrossContext) -> tuple[list[Chunk], Counter[str]]:
    """Return the rows that the student's tokenizer gives back, and what was left out."""
    met = align(rows, cross.tables.strings, cross.tables.student)
    return [rows[r] for r in met.kept], met.counts


def describe(parts: tuple[str, ...], config: Config) -> str:
    """Return the parts of a loss across tokenizers, and how they are weighed, in a few words."""
    if len(parts) == 1:
        return "cross-entropy"
    how = "by gradient norms" if config.balance == "norms" else f"{config.ce_weight} of it cross-entropy"
    return f"{' + '.join(parts[1:])} + cross-entropy, weighed {how}"

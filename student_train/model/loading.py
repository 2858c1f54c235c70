"""Load a student that is ready to train: float32 weights, checked, with the requested number of layers.

Its tokenizer may be the shards' or another (see `tokenizer_match.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.format.manifest import Teacher
from shards.model_files.tokenizer import TokenizerRules
from student_train.errors import StudentError
from student_train.model.head import require_projection
from student_train.model.model_folder import load_model, load_rules, require_ids
from student_train.model.probe import require_runs
from student_train.model.sources import base_folder, default_name, find_student, has_weights, tokenizer_files
from student_train.model.tokenizer_match import tokenizer_difference
from student_train.pruning.layer_choice import Choose, LayerChoice, choose_evenly
from student_train.pruning.shorten import shorten


@dataclass(kw_only=True, slots=True)
class Student:
    """A model ready to train."""

    model: Any
    """transformers causal language model, float32, on the CPU."""
    source: str
    """Origin for the record: names and revisions; no paths for packaged models."""
    layers: int | None
    """Layers that were kept; None for all."""
    layer_choice: LayerChoice | None = None
    """Which layers were kept, and why; None for all."""
    tokenizer_dir: Path
    """Folder with the tokenizer's files for the output."""
    vocab_size: int
    """Ids that its projection has."""
    max_row_tokens: int
    """Most tokens of a row that it reads."""
    other_tokenizer: str | None = None
    """How its tokenizer differs from the shards'; None where it is the same."""
    from_folder: bool = False
    """Whether it starts from a folder of this machine, and not from the hub or a package."""
    adapted: Any = None
    """The model with adapters, which can merge them; None without adapters."""

    def beside(self, shards_tokenizer: Path) -> Student:
        """Return the same student, matched with the tokenizer of other shards.

        Args:
            shards_tokenizer: Folder of the shards' tokenizer.

        Raises:
            StudentError: A tokenizer samples, so that it is not a function of the text.
        """
        own, others = (load_rules(self.source, folder) for folder in (self.tokenizer_dir, shards_tokenizer))
        return replace(self, other_tokenizer=tokenizer_difference(self.source, own, others))


def load(
    name: str,
    *,
    layers: int,
    teacher: Teacher,
    shards_tokenizer: Path,
    seed: int,
    choose: Choose = choose_evenly,
    on_teacher: Callable[[Any], None] = lambda model: None,
    log: Callable[[str], None] = lambda line: None,
) -> Student:
    """Return a student.

    Args:
        name: Short name, hub id or folder; "" for the default. A folder or repository with a configuration but no
            weights starts fresh.
        layers: Number of layers, as in `Config.student_layers`.
        teacher: The teacher that made the shards.
        shards_tokenizer: Folder of the shards' tokenizer.
        seed: Seed of a model that starts fresh.
        choose: Rule that picks the layers to keep.
        on_teacher: Called with the teacher's uncut model where that is the student.
        log: Called with one line about tensors that are left out.

    Raises:
        StudentError: The student is unavailable, or does not fit the shards.
    """
    name = name or default_name(teacher)
    folder, source = find_student(name, teacher)
    tokenizer = match_tokenizer(name, folder, shards_tokenizer)
    model = load_model(name, folder, seed=seed, log=log)
    require_projection(model)
    require_runs(model)
    vocab_size = model.get_output_embeddings().weight.shape[0]
    if name == "teacher":
        on_teacher(model)
    else:
        require_ids(name, tokenizer.rules, vocab_size=vocab_size)
    choice = None
    if keep := _layers_to_keep(name, model, layers):
        other = "its tokenizer is not the shards'" if tokenizer.difference else ""
        choice = choose(model, keep, unfit=other if has_weights(folder) else "it starts fresh")
        model = shorten(model, choice.kept)
    student = _student(model, source, tokenizer, choice=choice)
    return replace(student, from_folder=base_folder(name, teacher) is not None)


def loaded(name: str, model: Any, *, teacher: Teacher, shards_tokenizer: Path) -> Student:
    """Return a model in memory as a student, as it is.

    Args:
        name: Short name, hub id or folder that the model came from; its tokenizer is there.
        model: transformers causal language model.
        teacher: The teacher that made the shards.
        shards_tokenizer: Folder of the shards' tokenizer.

    Raises:
        StudentError: The tokenizer is unavailable, or the model does not fit it.
    """
    folder, source = find_student(name, teacher)
    tokenizer = match_tokenizer(name, folder, shards_tokenizer)
    require_projection(model)
    require_runs(model)
    if name != "teacher":
        require_ids(name, tokenizer.rules, vocab_size=model.get_output_embeddings().weight.shape[0])
    return _student(model, source, tokenizer)


def _student(model: Any, source: str, tokenizer: StudentTokenizer, *, choice: LayerChoice | None = None) -> Student:
    return Student(
        model=model,
        source=source,
        layers=None if choice is None else len(choice.kept),
        layer_choice=choice,
        tokenizer_dir=tokenizer.folder,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        other_tokenizer=tokenizer.difference,
        max_row_tokens=context_of(model),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentTokenizer:
    """The tokenizer of a student."""

    folder: Path
    """Folder with its files."""
    rules: TokenizerRules
    """Its rules."""
    difference: str | None
    """How it differs from the shards' tokenizer; None where it is the same."""


def match_tokenizer(name: str, folder: Path, shards_tokenizer: Path) -> StudentTokenizer:
    """Return the tokenizer of the student in a folder: its own, or that of the shards for a fresh model without one."""
    shards_rules = load_rules(name, shards_tokenizer)
    if any(entry.name == "tokenizer.json" for entry in tokenizer_files(folder)):
        rules = load_rules(name, folder)
        difference = tokenizer_difference(name, rules, shards_rules)
        return StudentTokenizer(
            folder=shards_tokenizer if name == "teacher" else folder, rules=rules, difference=difference
        )
    if name != "teacher" and has_weights(folder):
        raise StudentError(
            f"student {name}: found weights without a tokenizer.json in {folder}, expected one to compare with the "
            "shards'; save the tokenizer beside the weights"
        )
    return StudentTokenizer(folder=shards_tokenizer, rules=shards_rules, difference=None)


def context_of(model: Any) -> int:
    """Return the most tokens that a model reads; 2^31 where its configuration names no limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((int(limit) for limit in limits if limit), 2**31)


def _layers_to_keep(name: str, model: Any, layers: int) -> int:
    """Return the number of layers to keep of those that `model` has; 0 for all. `layers` is as in `Config`."""
    num_layers = int(model.config.get_text_config().num_hidden_layers)
    # A student as deep as its teacher would have nothing to learn.
    layers = layers or (max(2, (num_layers + 1) // 2) if name == "teacher" else 0)
    if layers > num_layers:
        raise StudentError(
            f"student {name}: found {num_layers} layers, expected at least the {layers} of --student-layers; "
            "ask for fewer"
        )
    return 0 if layers == num_layers else layers

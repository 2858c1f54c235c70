"""The full distributions of the teacher, stored as hidden states of its last layer.

The corpus is the Python standard library, cut into windows as a dump cuts them. Windows of held-out documents (by the
trainer's own rule) are for evaluation, one window a document, so that documents are many; all others are for training.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from student_train.data.hashing import is_held_out
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.model.teachers import LocalTeacher, resolve
from teacher_dump.tasks.task import shuffle_windows
from teacher_dump.tasks.windowing import Window, cut_windows

NAME = "smollm2-135m"
WINDOW_TOKENS = 512
HELD_OUT = 0.15
"""Share of held-out documents, chosen by a hash of their content."""
TRAIN_POSITIONS = 152_000
HELD_OUT_POSITIONS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """Windows with the teacher's hidden states."""

    windows: list[Window]
    hidden: list[torch.Tensor]
    """float32 [P, 576] each, after the final norm; row j predicts token j + 1."""
    weight: torch.Tensor
    """float32 [V, 576]: the teacher's output projection."""

    def part(self, start: int, stop: int) -> Taught:
        """Return the windows from `start` to `stop`."""
        return Taught(windows=self.windows[start:stop], hidden=self.hidden[start:stop], weight=self.weight)

    def logits(self, i: int) -> torch.Tensor:
        """Return float32 [P, V], the teacher's logits for window `i`."""
        return self.hidden[i] @ self.weight.t()


def chosen(model: LocalTeacher) -> tuple[list[Window], list[Window]]:
    """Return training windows and held-out windows in the shuffled order of the corpus."""
    from transformers import AutoTokenizer

    corpus = Corpus(data="stdlib", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    cut = cut_windows(
        corpus, tokenizer, prefix_tokens=model.prefix_tokens, window_tokens=WINDOW_TOKENS, counts=corpus.counts
    )
    train: list[Window] = []
    held: dict[str, Window] = {}
    for window in shuffle_windows(cut, 0):
        if len(window.tokens) < 2:
            continue
        if is_held_out(window.info.document, fraction=HELD_OUT):
            held.setdefault(window.info.document, window)
        else:
            train.append(window)
    return list(_until(train, TRAIN_POSITIONS)), list(_until(list(held.values()), HELD_OUT_POSITIONS))


def _until(rows: Iterator[Window] | list[Window], positions: int) -> Iterator[Window]:
    seen = 0
    for row in rows:
        if seen >= positions:
            return
        yield row
        seen += len(row.tokens) - 1


def ask(scratch: Path, tell: Callable[[str], None]) -> tuple[Taught, Taught]:
    """Return training and held-out windows with hidden states, read from `scratch` if they are stored there."""
    model = resolve(NAME)
    net = None
    found = []
    weight_file = scratch / "weight.pt"
    if not weight_file.exists():
        net = _load(model)
        save(net.get_output_embeddings().weight.detach().clone(), weight_file)
    weight = torch.load(weight_file)
    plan = scratch / "windows.pkl"
    if not plan.exists():
        plan.write_bytes(pickle.dumps(chosen(model)))
    for split, rows in zip(("train", "held"), pickle.loads(plan.read_bytes()), strict=True):
        hidden: list[torch.Tensor] = []
        for i, row in enumerate(rows):
            file = scratch / f"hidden-{split}-{i:04d}.pt"
            if not file.exists():
                net = net or _load(model)
                save(_hidden(net, row), file)
                if i % 50 == 49:
                    tell(f"teacher: {split} {i + 1} of {len(rows)} windows")
            hidden.append(torch.load(file))
        found.append(Taught(windows=rows, hidden=hidden, weight=weight))
    return found[0], found[1]


def _load(model: LocalTeacher) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def _hidden(net: torch.nn.Module, row: Window) -> torch.Tensor:
    tokens = torch.from_numpy(row.tokens[None].astype(np.int64))
    with torch.inference_mode():
        return net.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[0, :-1].clone()


def save(value: object, file: Path) -> None:
    """Write a file completely or not at all."""
    part = file.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, file)

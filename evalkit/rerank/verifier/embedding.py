"""Embeddings of programs: the last hidden state of a language model that reads the task, the program and a question.

The model is frozen. A linear head on its embeddings and on the features is trained as any other verifier
(`verifier/fit.py`), so a small student can judge its own programs without another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import Checkpoint, find_checkpoint
from evalkit.rerank.evidence import Float64, TaskEvidence
from evalkit.rerank.verifier.verifier import Verifier

MAX_TOKENS = 1024
"""Longest text that is read, in tokens; of a longer one the beginning is left out."""

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included."""

QUESTION = "\n\n# Does this program solve the task? Answer:"
"""Text after the program; the state of its last token is the embedding."""


def text_of(question: str, program: str) -> str:
    """Return what the model reads of one program: the task, unless the program begins with it, and the program."""
    task = question.strip()
    stated = not task or program.lstrip().startswith(task)
    return (program if stated else f'"""{task}"""\n{program}').rstrip() + QUESTION


class Embedder:
    """A checkpoint that is loaded when it is first used."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._tokenizer: Any = None
        self._model: Any = None

    def __call__(self, evidence: TaskEvidence) -> Float64:
        """Return [P, D] the embedding of each program, in float32 precision.

        Raises:
            EvalError: The checkpoint cannot be loaded, or its states are not finite.
        """
        import torch

        self._load()
        ids = [self._encode(text_of(evidence.question, program)) for program in evidence.programs]
        states: list[Any] = [None] * len(ids)
        with torch.inference_mode():
            for batch in batches([len(item) for item in ids]):
                for place, state in zip(batch, self._last_states([ids[place] for place in batch]), strict=True):
                    states[place] = state
        embedding = np.stack(states).astype(np.float64)
        if not np.isfinite(embedding).all():
            raise EvalError(f"{self.checkpoint.source}: its states are not finite; expected a trained checkpoint")
        return embedding

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        from evalkit.generation.decoding import load_tokenizer, loading_error
        from shards.runtime import machine

        logging.disable_progress_bar()
        machine.use_threads(torch)
        self._tokenizer = load_tokenizer(self.checkpoint)
        try:
            model = AutoModel.from_pretrained(
                self.checkpoint.source, revision=self.checkpoint.revision, dtype=torch.float32
            )
        except Exception as error:  # safetensors, torch and each model class raise their own errors on bad files
            raise loading_error(self.checkpoint, "model", error) from error
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def _encode(self, text: str) -> list[int]:
        context = getattr(self._model.config, "max_position_embeddings", None) or MAX_TOKENS
        ids: list[int] = self._tokenizer(text)["input_ids"][-min(MAX_TOKENS, context) :]
        return ids

    def _last_states(self, ids: Sequence[Sequence[int]]) -> Float64:
        """Return [B, D] the states of the last tokens; texts are padded on the right, which no state sees."""
        import torch

        lengths = torch.tensor([len(item) for item in ids])
        width = int(lengths.max())
        padded = [[*item, *[self._tokenizer.pad_token_id] * (width - len(item))] for item in ids]
        ids_BT = torch.tensor(padded, device=self._model.device)
        mask_BT = (torch.arange(width)[None] < lengths[:, None]).long().to(self._model.device)
        hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        last_BD = hidden_BTD[torch.arange(len(ids)), lengths.to(hidden_BTD.device) - 1]
        states: Float64 = last_BD.float().cpu().numpy()
        return states


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the places of texts in batches of like length, each of at most `BATCH_TOKENS` or one text."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if groups and (len(groups[-1]) + 1) * lengths[place] <= BATCH_TOKENS:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def embedder_of(verifier: Verifier, model: str | None, label: str) -> Embedder | None:
    """Return the embedder of a verifier; None if it reads features alone.

    Args:
        verifier: The verifier.
        model: The checkpoint that the user names. The verifier's own file never decides what is loaded.
        label: The verifier's folder, for errors.

    Raises:
        EvalError: The checkpoint is missing, superfluous or another one.
    """
    checkpoint = find_checkpoint(model) if model is not None else None
    verifier.require_embedding(model, checkpoint.sha256 if checkpoint is not None else "", label)
    return Embedder(checkpoint) if checkpoint is not None else None

"""Greedy completions of a few short prompts, for people to read: `OUT/completions.json`.

The file shows what a model writes; it measures nothing. Its form: `format` (1), `prompts` (list of text),
`max_new_tokens`, and `completions`: by role (`teacher`, `student`) one text for each prompt. The teacher's are written
when its weights are loaded anyway, as the uncut model of a `--student teacher`; else that key is absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shards.errors import first_line
from student_train.outputs import checkpoint

FORMAT = 1
NAME = "completions.json"
MAX_NEW_TOKENS = 24
PROMPTS = (
    "import json\n\n\ndef read_json(path):\n    with open(path) as file:\n        return",
    "def is_even(number):\n    return",
    "class Stack:\n    def __init__(self):\n        self.items =",
)
"""None ends in a blank or a line break: tokenizers join those with what follows."""


def complete(
    model: Any, tokenizer_dir: Path, *, prompts: Sequence[str] = PROMPTS, max_new_tokens: int = MAX_NEW_TOKENS
) -> list[str]:
    """Return what `model` writes after each prompt: the likeliest token each time, at most `max_new_tokens`.

    One prompt at a time, so that no padding takes part. The model's mode is as before afterwards.
    """
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = tokenizer.eos_token_id if ends is None else ends
    first_end = ends[0] if isinstance(ends, list) else ends
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=0 if first_end is None else first_end,
    )
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    texts = []
    try:
        for prompt in prompts:
            ids_BT = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
            with torch.no_grad():
                written_BT = model.generate(
                    input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings
                )
            # Decoded with the prompt: a SentencePiece tokenizer drops the first blank of what is decoded alone.
            before = tokenizer.decode(ids_BT[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            whole = tokenizer.decode(written_BT[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            texts.append(whole[len(before) :])
    finally:
        model.train(was_training)
    return texts


def try_to_complete(model: Any, tokenizer_dir: Path, *, say: Callable[[str], None]) -> list[str] | None:
    """Return what `complete` does; where the model cannot generate, say so and return None.

    Completions are a sample for people: they must not cost a run that is finished otherwise.
    """
    try:
        return complete(model, tokenizer_dir)
    except Exception as error:  # each model class fails in its own way
        say(f"no completions: found that the model does not generate ({type(error).__name__}: {first_line(error)})")
        return None


def write(out: Path, *, student: Sequence[str], teacher: Sequence[str] | None) -> None:
    """Write `OUT/completions.json`, whole or not at all."""
    roles = {} if teacher is None else {"teacher": list(teacher)}
    record = {
        "format": FORMAT,
        "prompts": list(PROMPTS),
        "max_new_tokens": MAX_NEW_TOKENS,
        "completions": {**roles, "student": list(student)},
    }
    checkpoint.write_text(out / NAME, json.dumps(record, indent=1) + "\n")

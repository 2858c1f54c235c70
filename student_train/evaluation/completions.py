"""Greedy completions of a few short prompts, for people to read: `OUT/completions.json`.

The file shows what a model writes; it measures nothing. Its keys: `format` (1), `prompts` (list of text),
`max_new_tokens`, and `completions`: by role (`teacher`, `student`) one text for each prompt. The teacher's are written
where its weights are loaded anyway, as the uncut model of a `--student teacher`; else that role is absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.storage.atomic import write_atomic

FORMAT = 1
NAME = "completions.json"
MAX_NEW_TOKENS = 24
PROMPTS = (
    "import json\n\n\ndef read_json(path):\n    with open(path) as file:\n        return",
    "def is_even(number):\n    return",
    "class Stack:\n    def __init__(self):\n        self.items =",
)
"""None ends in a space or a line break: tokenizers join those with what follows."""


def complete(
    model: Any, tokenizer_dir: Path, *, prompts: Sequence[str] = PROMPTS, max_new_tokens: int = MAX_NEW_TOKENS
) -> list[str]:
    """Return the greedy completion of each prompt.

    Prompts are completed one at a time, so no padding takes part.

    Args:
        model: transformers causal language model; its mode is restored afterwards.
        tokenizer_dir: Folder with its tokenizer.
        prompts: Texts to continue.
        max_new_tokens: Most tokens of a completion.
    """
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    settings = _greedy(model, tokenizer, max_new_tokens)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    texts = []
    try:
        for prompt in prompts:
            ids_BT = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
            with torch.no_grad():
                output_BT = model.generate(
                    input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings
                )
            # The prompt is decoded with its completion: SentencePiece drops the first space of a text.
            before, both = (
                tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                for ids in (ids_BT[0], output_BT[0])
            )
            texts.append(both[len(before) :])
    finally:
        model.train(was_training)
    return texts


def _greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> Any:
    """Return transformers' settings of greedy decoding up to the model's own end of text."""
    from transformers import GenerationConfig

    end_ids = model.generation_config.eos_token_id if model.generation_config is not None else None
    end_ids = tokenizer.eos_token_id if end_ids is None else end_ids
    first_end = end_ids[0] if isinstance(end_ids, list) else end_ids
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids,
        pad_token_id=0 if first_end is None else first_end,
    )


def try_to_complete(model: Any, tokenizer_dir: Path, *, log: Callable[[str], None]) -> list[str] | None:
    """Return what `complete` returns; where the model cannot generate, log that and return None.

    Completions are a sample for people. A run that is finished otherwise must not fail because of them.
    """
    try:
        return complete(model, tokenizer_dir)
    except Exception as error:  # each model class fails in its own way
        log(f"no completions: found that the model does not generate ({type(error).__name__}: {first_line(error)})")
        return None


def write(out: Path, *, student: Sequence[str], teacher: Sequence[str] | None) -> None:
    """Write `OUT/completions.json` atomically."""
    roles = {} if teacher is None else {"teacher": list(teacher)}
    record = {
        "format": FORMAT,
        "prompts": list(PROMPTS),
        "max_new_tokens": MAX_NEW_TOKENS,
        "completions": {**roles, "student": list(student)},
    }
    write_atomic(out / NAME, (json.dumps(record, indent=1) + "\n").encode())

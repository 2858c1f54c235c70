"""Greedy completions of a few short prompts, for people to read: `OUT/completions.json`.

A student of responses answers three prompts of the cache, held-out ones where there are any. The file shows what a
model writes; it measures nothing. Its keys: `format` (1), `prompts` (list of text), `max_new_tokens`, and
`completions`: by role (`teacher`, `student`) one text for each prompt. The teacher's are written where its weights are
loaded anyway, as the uncut model of a `--student teacher`; else that role is absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.format.chunk import Chunk
from shards.format.messages import parse_messages
from shards.storage.atomic import write_atomic
from student_train.data.chat_template import StudentTemplate

FORMAT = 1
NAME = "completions.json"
MAX_NEW_TOKENS = 24
MAX_ANSWER_TOKENS = 160
PROMPTS = (
    "import json\n\n\ndef read_json(path):\n    with open(path) as file:\n        return",
    "def is_even(number):\n    return",
    "class Stack:\n    def __init__(self):\n        self.items =",
)
"""None ends in a space or a line break: tokenizers join those with what follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePrompts:
    """Prompts that are completed beside a run."""

    texts: tuple[str, ...] = PROMPTS
    """What people read: texts, or the last message of each conversation."""
    messages: tuple[str, ...] = ()
    """Conversations, as in `RowInfo.messages`; () for texts."""

    @classmethod
    def of(cls, rows: Sequence[Chunk]) -> SamplePrompts:
        """Return the first distinct prompts of responses, as many as `PROMPTS`; the latter for rows of documents."""
        found: dict[str, str] = {}
        for row in rows:
            if messages := row.rows[0].messages:
                found.setdefault(parse_messages(messages)[-1]["content"], messages)
        chosen = list(found.items())[: len(PROMPTS)]
        if not chosen:
            return cls()
        return cls(texts=tuple(text for text, _ in chosen), messages=tuple(messages for _, messages in chosen))

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of a completion."""
        return MAX_ANSWER_TOKENS if self.messages else MAX_NEW_TOKENS


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
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    prompt_ids = [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    return _generate(model, tokenizer, prompt_ids, _greedy(model, tokenizer, max_new_tokens))


def answer(model: Any, template: StudentTemplate, prompts: SamplePrompts) -> list[str]:
    """Return the greedy answer to each conversation, up to the end of the turn.

    Args:
        model: transformers causal language model; its mode is restored afterwards.
        template: The chat template that the model knows.
        prompts: Conversations.
    """
    prompt_ids = [template.context_ids(messages).tolist() for messages in prompts.messages]
    settings = _greedy(model, template.tokenizer, prompts.max_new_tokens)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    settings.eos_token_id = sorted({template.end_of_turn, *(end for end in ends if end is not None)})
    return _generate(model, template.tokenizer, prompt_ids, settings)


def _generate(model: Any, tokenizer: Any, prompt_ids: Sequence[list[int]], settings: Any) -> list[str]:
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    texts = []
    try:
        for ids in prompt_ids:
            ids_BT = torch.tensor([ids], device=device)
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


def try_to_complete(
    model: Any,
    tokenizer_dir: Path,
    *,
    log: Callable[[str], None],
    prompts: SamplePrompts | None = None,
    template: StudentTemplate | None = None,
) -> list[str] | None:
    """Return what `complete` or `answer` returns; where the model cannot generate, log that and return None.

    Completions are a sample for people. A run that is finished otherwise must not fail because of them.

    Args:
        model: transformers causal language model.
        tokenizer_dir: Folder with its tokenizer.
        log: Prints a line.
        prompts: What is completed; None for `PROMPTS`.
        template: The chat template that the model knows; None where prompts are texts.
    """
    prompts = prompts or SamplePrompts()
    try:
        if prompts.messages and template is not None:
            return answer(model, template, prompts)
        return complete(model, tokenizer_dir, prompts=prompts.texts)
    except Exception as error:  # each model class fails in its own way
        log(f"no completions: found that the model does not generate ({type(error).__name__}: {first_line(error)})")
        return None


def write(
    out: Path, *, student: Sequence[str], teacher: Sequence[str] | None, prompts: SamplePrompts | None = None
) -> None:
    """Write `OUT/completions.json` atomically."""
    prompts = prompts or SamplePrompts()
    roles = {} if teacher is None else {"teacher": list(teacher)}
    record = {
        "format": FORMAT,
        "prompts": list(prompts.texts),
        "max_new_tokens": prompts.max_new_tokens,
        "completions": {**roles, "student": list(student)},
    }
    write_atomic(out / NAME, (json.dumps(record, indent=1) + "\n").encode())

"""Tokenization rules shared by the generation engines: prompt ids, stop ids and answer text."""

from __future__ import annotations

from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.protocols import Protocol, cut


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the checkpoint's tokenizer, set for batches that are padded on the left.

    Raises:
        EvalError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, revision=checkpoint.revision)
    except Exception as error:  # every tokenizer class fails in its own way on a bad file
        raise cannot_load(checkpoint, "tokenizer", error) from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    return tokenizer


def load_config(checkpoint: Checkpoint) -> Any:
    """Load the model's configuration, of the text part where it has several.

    Raises:
        EvalError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision).get_text_config()
    except Exception as error:  # an unknown architecture and a broken file come as different errors
        raise cannot_load(checkpoint, "configuration", error) from error


def fitting_ids(checkpoint: Checkpoint, tokenizer: Any, prompts: list[Prompt], config: Any) -> list[list[int]]:
    """Return the ids of each prompt.

    Raises:
        EvalError: one leaves no room for an answer.
    """
    known: dict[tuple[str | None, str], list[int]] = {}
    longest = getattr(config, "max_position_embeddings", None) or 1 << 30
    for prompt in prompts:
        key = (prompt.user, prompt.text)
        if key not in known:
            known[key] = prompt_ids(tokenizer, prompt)
            if len(known[key]) >= longest:
                raise EvalError(
                    f"{checkpoint.source}: the prompt of {prompt.task_id} has {len(known[key])} tokens, "
                    f"the model takes {longest}; choose a model with a longer context"
                )
    return [known[prompt.user, prompt.text] for prompt in prompts]


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the ids that the model continues; a chat is laid out by the checkpoint's own template.

    Raises:
        EvalError: a chat was asked for, and the tokenizer has no template.
    """
    if prompt.user is None:
        return list(tokenizer(prompt.text)["input_ids"])
    chat = [{"role": "user", "content": prompt.user}]
    if not getattr(tokenizer, "chat_template", None):
        raise EvalError("this checkpoint has no chat template; choose a protocol for base models with --protocol")
    # The answer is left open, with the newline at its end: templates strip what is passed as a message.
    open_answer = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(open_answer + prompt.text, add_special_tokens=False)["input_ids"])


def cannot_load(checkpoint: Checkpoint, part: str, error: Exception) -> EvalError:
    """Return the one-line error for a checkpoint whose tokenizer or weights do not load."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return EvalError(
        f"{checkpoint.source}: the {part} cannot be loaded ({type(error).__name__}: {reason[:200]}); "
        "expected what save_pretrained writes; export the checkpoint again"
    )


def end_ids(tokenizer: Any, checkpoint: Checkpoint) -> list[int]:
    """Return the ids that end an answer: those that the checkpoint names, and all of the tokenizer's special ones.

    A special token is the border of a document or a turn. Chat models name the end of a turn, yet when they
    continue a file they end it with the token for the end of a text; what follows is another document.
    """
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision).eos_token_id
    except OSError:  # older checkpoints have none
        named = load_config(checkpoint).eos_token_id
    ids = named if isinstance(named, list) else [named]
    return sorted({int(one) for one in (*ids, *tokenizer.all_special_ids) if one is not None})


def answer_text(tokenizer: Any, prompt_ids: list[int], new_ids: list[int]) -> str:
    """Decode an answer with its prompt, then cut the prompt: indentation survives every tokenizer."""

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    prompt, whole = text(prompt_ids), text(prompt_ids + new_ids)
    # A prompt that ends inside a character decodes to U+FFFD, which more ids turn into that character.
    while not whole.startswith(prompt):
        prompt = prompt[:-1]
    return whole[len(prompt) :]


def finish(
    tokenizer: Any, prompt: Prompt, prompt_ids: list[int], new_ids: list[int], protocol: Protocol, ends: list[int]
) -> Answer:
    """Turn an answer's ids into text, cut it, and say why it ended."""
    ended = bool(new_ids) and new_ids[-1] in ends
    text, stopped = cut(answer_text(tokenizer, prompt_ids, new_ids[:-1] if ended else new_ids), protocol.stop)
    reason = "stop" if stopped else "end" if ended else "length"
    return Answer(prompt=prompt, completion=text, stop_reason=reason, tokens=len(new_ids))

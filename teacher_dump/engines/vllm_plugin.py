"""vLLM plugin: the teacher as a pooling model whose pooler (`vllm_pooler`) makes sparse records.

vLLM is neither patched nor forked. This module and `vllm_pooler` rely on semi-public interfaces of vLLM 0.32: the entry
point group `vllm.general_plugins`, `ModelRegistry.register_model`, `Pooler`, `PoolingMetadata` with its cursor and
states, and `PoolingParams.extra_kwargs`. `vllm` relies on `LLM.llm_engine.engine_core.shutdown` and on the names of
vLLM's crash errors. The tests in tests/teacher_dump/engines/test_vllm_plugin.py run the real engine and show which of
them an upgrade changed.
"""

from __future__ import annotations

from typing import Any

PREFIX = "TeacherlessCapture"
"""Prefix of the name of a capturing architecture; the name of the stock architecture follows."""
TASK = "token_classify"
"""vLLM's pooling task that returns one vector per token."""
CONFIG_KEY = "teacherless"
"""Key of the record settings in vLLM's `additional_config`."""


def is_causal_name(architecture: str) -> bool:
    """Return whether the name of an architecture is that of a causal language model."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def register() -> None:
    """Register a capturing class for each causal language model of vLLM. vLLM calls it in each of its processes."""
    from vllm import ModelRegistry

    for name in list(ModelRegistry.get_supported_archs()):
        if is_causal_name(name) and not name.startswith(PREFIX):
            ModelRegistry.register_model(f"{PREFIX}{name}", f"{__name__}:{PREFIX}{name}")


def __getattr__(name: str) -> type:
    """Return a class that `register` announced, derived from the stock class at first use."""
    if not name.startswith(PREFIX):
        raise AttributeError(name)
    from vllm import ModelRegistry

    stock = ModelRegistry.models[name.removeprefix(PREFIX)].load_model_cls()
    capturing = _capturing_class(stock, name)
    globals()[name] = capturing
    return capturing


def _capturing_class(stock: Any, name: str) -> type:
    """Derive a pooling model from a class of a causal language model. It keeps the output projection."""

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        stock.__init__(self, vllm_config=vllm_config, prefix=prefix)
        from teacher_dump.engines.vllm_pooler import RecordPooler

        self.pooler = RecordPooler(self, vllm_config.additional_config[CONFIG_KEY], task=TASK)

    return type(name, (stock,), {"__init__": __init__, "is_pooling_model": True, "__module__": __name__})

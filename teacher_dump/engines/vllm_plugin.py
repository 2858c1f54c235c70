"""vLLM plugin: the teacher as a pooling model whose pooler (`vllm_pooler`) makes sparse records.

For the writing of responses it also registers each model without the logits of padding: ids that only fill the
embedding are never sampled, and have no share of the probabilities.

vLLM is neither patched nor forked. This module and `vllm_pooler` rely on semi-public interfaces of vLLM 0.32: the entry
point group `vllm.general_plugins`, `ModelRegistry.register_model`, `Pooler`, `PoolingMetadata` with its cursor and
states, and `PoolingParams.extra_kwargs`. `vllm` relies on `LLM.llm_engine.engine_core.shutdown` and on the names of
vLLM's crash errors. The tests in tests/teacher_dump/engines/test_vllm_plugin.py run the real engine and show which of
them an upgrade changed.
"""

from __future__ import annotations

import math
from typing import Any

PREFIX = "TeacherlessCapture"
"""Prefix of the name of a capturing architecture; the name of the stock architecture follows."""
WRITER_PREFIX = "TeacherlessWriter"
"""Prefix of the name of an architecture that writes without padding ids."""
TASK = "token_classify"
"""vLLM's pooling task that returns one vector per token."""
CONFIG_KEY = "teacherless"
"""Key of the settings in vLLM's `additional_config`."""


def is_causal_name(architecture: str) -> bool:
    """Return whether the name of an architecture is that of a causal language model."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def register() -> None:
    """Register both classes for each causal language model of vLLM. vLLM calls it in each of its processes."""
    from vllm import ModelRegistry

    for name in list(ModelRegistry.get_supported_archs()):
        if is_causal_name(name) and not name.startswith((PREFIX, WRITER_PREFIX)):
            for prefix in (PREFIX, WRITER_PREFIX):
                ModelRegistry.register_model(f"{prefix}{name}", f"{__name__}:{prefix}{name}")


def __getattr__(name: str) -> type:
    """Return a class that `register` announced, derived from the stock class at first use."""
    prefix = next((prefix for prefix in _DERIVED if name.startswith(prefix)), None)
    if prefix is None:
        raise AttributeError(name)
    from vllm import ModelRegistry

    stock = ModelRegistry.models[name.removeprefix(prefix)].load_model_cls()
    derived = _DERIVED[prefix](stock, name)
    globals()[name] = derived
    return derived


def _capturing_class(stock: Any, name: str) -> type:
    """Derive a pooling model from a class of a causal language model. It keeps the output projection."""

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        stock.__init__(self, vllm_config=vllm_config, prefix=prefix)
        from teacher_dump.engines.vllm_pooler import RecordPooler

        self.pooler = RecordPooler(self, vllm_config.additional_config[CONFIG_KEY], task=TASK)

    return type(name, (stock,), {"__init__": __init__, "is_pooling_model": True, "__module__": __name__})


def _writer_class(stock: Any, name: str) -> type:
    """Derive a model that gives padding ids no probability."""

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        stock.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.num_real_ids = int(vllm_config.additional_config[CONFIG_KEY]["vocab_size"])

    def compute_logits(self: Any, *given: Any, **options: Any) -> Any:
        logits = stock.compute_logits(self, *given, **options)
        if logits is not None:  # None on workers that do not sample
            logits[..., self.num_real_ids :] = -math.inf
        return logits

    return type(name, (stock,), {"__init__": __init__, "compute_logits": compute_logits, "__module__": __name__})


_DERIVED = {PREFIX: _capturing_class, WRITER_PREFIX: _writer_class}
"""Functions that derive a class from the stock class, by the prefix of its name."""

"""Find the maps to queries, keys and values in a layer of a loaded transformers model.

Recording a teacher and training a student must take the same vectors, so both use this module. It works on any object
with `named_modules`, and imports no torch. The vectors are the outputs of these maps: before rotary position encoding,
and before a normalisation of queries and keys. A model that computes the three in one map is not supported.
"""

from __future__ import annotations

from typing import Any

_NAMES = ("q_proj", "k_proj", "v_proj")


def attention_maps(layer: Any) -> tuple[Any, Any, Any] | None:
    """Return the modules that compute queries, keys and values.

    Args:
        layer: A decoder layer.

    Returns:
        None if the layer does not have exactly one module of each name.
    """
    found: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for path, module in layer.named_modules():
        own = path.rpartition(".")[2]
        if own in found:
            found[own].append(module)
    if any(len(modules) != 1 for modules in found.values()):
        return None
    queries, keys, values = (found[name][0] for name in _NAMES)
    return queries, keys, values

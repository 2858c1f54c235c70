"""Rewrite the per-layer settings of a configuration for the layers that are kept.

A configuration describes layer i in five ways: a list with one entry per layer, a list of layer numbers, the number of
first or last layers of a kind, a period with an offset, and a repeated pattern. Each is rewritten for the new numbers.
A period that no longer holds is replaced by an explicit list where the configuration has one, and refused by name
elsewhere. `shorten.py` compares the resulting model with the original.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from student_train.errors import StudentError

_INDEX_LIST = re.compile(r"(indices|indexes|_idx|_idxs|_ids|layers)$")
"""Names of lists of layer numbers."""
_NOT_LAYERS = re.compile(r"(token|tokens|token_id|token_ids|architectures|labels|id2label|label2id|scales?|sections?)$")
"""Names of settings that are not per layer, whatever their length."""
_ZERO_ONE = frozenset({"no_rope_layers"})
"""Lists with one entry per layer although their names say layer numbers."""
_FIRST = ("first_k_dense_replace", "max_window_layers", "num_dense_layers", "moe_layer_start_index")
"""Numbers of first layers of a kind."""
_LAST = ("num_kv_shared_layers",)
"""Numbers of last layers of a kind."""
_PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))
"""(period, offset): layer i is of the kind where i % period == offset."""


def recut(config: Any, kept: Sequence[int]) -> None:
    """Rewrite a text configuration, in place, for some of its layers.

    Args:
        config: transformers configuration of the text part.
        kept: Indices of the kept layers, ascending.

    Raises:
        StudentError: A setting has no value that describes the kept layers.
    """
    num_layers = config.num_hidden_layers
    _make_sparse_steps_explicit(config)
    values = dict(vars(config))
    for name, value in values.items():
        if name.startswith("_") or _NOT_LAYERS.search(name):
            continue
        new = _recut_value(name, value, kept, num_layers)
        if new is not value:
            setattr(config, name, new)
    for name in _FIRST:
        if isinstance(values.get(name), int):
            setattr(config, name, sum(i < values[name] for i in kept))
    for name in _LAST:
        if isinstance(values.get(name), int):
            setattr(config, name, sum(i >= num_layers - values[name] for i in kept))
    _recut_periods(config, values, kept)
    _recut_moe_interval(config, values, kept, num_layers)
    for name in ("num_blocks", "n_blocks"):  # xLSTM has the number of layers twice
        if values.get(name) == num_layers:
            setattr(config, name, len(kept))
    if "scale_depth" in values:  # MiniCPM multiplies each layer by scale_depth / sqrt(number of layers)
        config.scale_depth = values["scale_depth"] * (len(kept) / num_layers) ** 0.5
    config.num_hidden_layers = len(kept)


def _recut_value(name: str, value: Any, kept: Sequence[int], num_layers: int) -> Any:
    """Return `value` for the kept layers, or `value` itself where it is not per layer."""
    if name == "attention_types":  # GPT-Neo: [[["global", "local"], 12]]
        flat = [kind for kinds, times in value for _ in range(times) for kind in kinds]
        return [[[flat[i] for i in kept], 1]]
    if name == "block_types":  # RecurrentGemma: a repeated pattern
        return [value[i % len(value)] for i in kept]
    if isinstance(value, dict):
        return _recut_dict(value, kept, num_layers)
    if isinstance(value, str):
        return "".join(value[i] for i in kept) if len(value) == num_layers and "pattern" in name else value
    if not isinstance(value, list | tuple):
        return value
    if _is_index_list(name, value, num_layers):
        return type(value)(kept.index(i) for i in value if i in kept)
    return type(value)(value[i] for i in kept) if len(value) == num_layers else value


def _recut_dict(value: dict[Any, Any], kept: Sequence[int], num_layers: int) -> dict[Any, Any]:
    """Return a dictionary by layer number for the kept layers; other dictionaries unchanged."""
    try:
        numbers = {key: int(key) for key in value}
    except (TypeError, ValueError):
        nested = {key: _recut_nested(str(key), entry, kept) for key, entry in value.items()}
        return nested if any(nested[key] is not value[key] for key in value) else value
    if not numbers or not all(0 <= number < num_layers for number in numbers.values()):
        return value
    return {type(key)(kept.index(i)): value[key] for key, i in numbers.items() if i in kept}


def _recut_nested(name: str, value: Any, kept: Sequence[int]) -> Any:
    """Return a list of layer numbers, from 1, inside a dictionary (Kimi Linear), for the kept layers."""
    if name in ("kda_layers", "full_attn_layers") and isinstance(value, list):
        return [kept.index(i - 1) + 1 for i in value if i - 1 in kept]
    return value


def _is_index_list(name: str, value: Sequence[Any], num_layers: int) -> bool:
    """Return whether `value` holds layer numbers rather than one entry per layer."""
    if name in _ZERO_ONE or not _INDEX_LIST.search(name) or not value:
        return False
    are_numbers = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < num_layers for i in value)
    return are_numbers and len({*value}) == len(value)


def _make_sparse_steps_explicit(config: Any) -> None:
    """Replace Qwen's step of expert layers by a list: all layers but those in `mlp_only_layers`."""
    step, dense = getattr(config, "decoder_sparse_step", None), getattr(config, "mlp_only_layers", None)
    if isinstance(step, int) and isinstance(dense, list) and step > 1:
        dense = {*dense, *(i for i in range(config.num_hidden_layers) if (i + 1) % step)}
        config.mlp_only_layers, config.decoder_sparse_step = sorted(dense), 1


def _recut_periods(config: Any, values: dict[str, Any], kept: Sequence[int]) -> None:
    """Set a period and an offset that give the kept layers their kinds."""
    for period, offset in _PERIODS:
        if not isinstance(values.get(period), int):
            continue
        flags = [i % values[period] == values[offset] for i in kept]
        candidates = ((p, o) for p in range(1, len(kept) + 2) for o in range(p))
        fitting = next((pair for pair in candidates if _has_period(flags, *pair)), None)
        if fitting is None:
            raise _no_period(f"{period} {values[period]}, {offset} {values[offset]}", kept)
        # Both at once, as a configuration may check that the offset is below the period.
        config.__dict__[period], config.__dict__[offset] = fitting


def _has_period(flags: Sequence[bool], period: int, offset: int) -> bool:
    return all((j % period == offset) == flag for j, flag in enumerate(flags))


def _recut_moe_interval(config: Any, values: dict[str, Any], kept: Sequence[int], num_layers: int) -> None:
    """Set the interval, the start and the end of ERNIE's expert layers."""
    step, start, end = (values.get(f"moe_layer_{part}") for part in ("interval", "start_index", "end_index"))
    if not (isinstance(step, int) and isinstance(start, int) and isinstance(end, int)):
        return
    end = end if end >= 0 else num_layers - 1
    flags = [(i + 1) % step == 0 and start <= i <= end for i in kept]
    first = flags.index(True) if True in flags else len(kept)
    last = max((j for j, flag in enumerate(flags) if flag), default=-1)
    for interval in range(1, len(kept) + 2):
        if all(((j + 1) % interval == 0 and first <= j <= last) == flag for j, flag in enumerate(flags)):
            config.moe_layer_interval = interval
            config.moe_layer_start_index, config.moe_layer_end_index = first, max(last, 0)
            return
    raise _no_period(f"moe_layer_interval {step}", kept)


def _no_period(setting: str, kept: Sequence[int]) -> StudentError:
    return StudentError(
        f"student-layers: found {setting}, which repeats over the layers, and layers {', '.join(map(str, kept))} do "
        "not repeat; expected layers whose kinds repeat; keep others (--layer-choice, --student-layers), or all"
    )

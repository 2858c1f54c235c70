"""Re-cut the per-layer settings of a configuration to the layers that are kept.

A configuration says what layer i is in five ways: a list with one entry per layer, a list of layer numbers, the number
of first or last layers of a kind, a period with an offset, and a pattern that is repeated. Each is rewritten for the
new numbers. A period that no longer holds is replaced by an explicit list where the configuration has one, and
refused by name elsewhere. `shorten.py` compares the model that results with the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from student_train.errors import StudentError

_INDEX_LIST = re.compile(r"(indices|indexes|_idx|_idxs|_ids|layers)$")
_NOT_LAYERS = re.compile(r"(token|tokens|token_id|token_ids|architectures|labels|id2label|label2id|scales?|sections?)$")
_ZERO_ONE = frozenset({"no_rope_layers"})
_FIRST = ("first_k_dense_replace", "max_window_layers", "num_dense_layers", "moe_layer_start_index")
_LAST = ("num_kv_shared_layers",)
# (period, offset): layer i is of the kind where i % period == offset.
_PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))


def recut(config: Any, kept: Sequence[int]) -> None:
    """Rewrite the text configuration `config`, in place, for the layers `kept` (ascending) of its layers.

    Raises: StudentError for a setting that the kept layers cannot have.
    """
    have = config.num_hidden_layers
    _sparse_steps(config)
    values = dict(vars(config))
    for name, value in values.items():
        if name.startswith("_") or _NOT_LAYERS.search(name):
            continue
        new = _recut_value(name, value, kept, have)
        if new is not value:
            setattr(config, name, new)
    for name in _FIRST:
        if isinstance(values.get(name), int):
            setattr(config, name, sum(i < values[name] for i in kept))
    for name in _LAST:
        if isinstance(values.get(name), int):
            setattr(config, name, sum(i >= have - values[name] for i in kept))
    _periods(config, values, kept)
    _intervals(config, values, kept, have)
    for name in ("num_blocks", "n_blocks"):  # xLSTM counts twice
        if values.get(name) == have:
            setattr(config, name, len(kept))
    if "scale_depth" in values:  # MiniCPM weighs each layer by scale_depth / sqrt(number of layers)
        config.scale_depth = values["scale_depth"] * (len(kept) / have) ** 0.5
    config.num_hidden_layers = len(kept)


def _recut_value(name: str, value: Any, kept: Sequence[int], have: int) -> Any:
    """Return `value` for the kept layers, or `value` itself where it is not per layer."""
    if name == "attention_types":  # GPT-Neo: [[["global", "local"], 12]]
        flat = [kind for kinds, times in value for _ in range(times) for kind in kinds]
        return [[[flat[i] for i in kept], 1]]
    if name == "block_types":  # RecurrentGemma: a pattern that is repeated
        return [value[i % len(value)] for i in kept]
    if isinstance(value, dict):
        return _recut_dict(value, kept, have)
    if isinstance(value, str):
        return "".join(value[i] for i in kept) if len(value) == have and "pattern" in name else value
    if not isinstance(value, list | tuple):
        return value
    if _is_index_list(name, value, have):
        return type(value)(kept.index(i) for i in value if i in kept)
    return type(value)(value[i] for i in kept) if len(value) == have else value


def _recut_dict(value: dict[Any, Any], kept: Sequence[int], have: int) -> dict[Any, Any]:
    """Return a dictionary by layer number for the kept layers; others as they are."""
    try:
        numbers = {key: int(key) for key in value}
    except (TypeError, ValueError):
        nested = {key: _nested(str(key), one, kept, have) for key, one in value.items()}
        return nested if any(nested[key] is not value[key] for key in value) else value
    if not numbers or not all(0 <= number < have for number in numbers.values()):
        return value
    return {type(key)(kept.index(i)): value[key] for key, i in numbers.items() if i in kept}


def _nested(name: str, value: Any, kept: Sequence[int], have: int) -> Any:
    """Return a list of layer numbers, from 1, inside a dictionary (Kimi Linear), for the kept layers."""
    if name in ("kda_layers", "full_attn_layers") and isinstance(value, list):
        return [kept.index(i - 1) + 1 for i in value if i - 1 in kept]
    return value


def _is_index_list(name: str, value: Sequence[Any], have: int) -> bool:
    """Return whether `value` holds layer numbers rather than one entry per layer."""
    if name in _ZERO_ONE or not _INDEX_LIST.search(name) or not value:
        return False
    whole = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < have for i in value)
    return whole and len({*value}) == len(value)


def _sparse_steps(config: Any) -> None:
    """Make Qwen's step of expert layers explicit: all layers but those in `mlp_only_layers`."""
    step, dense = getattr(config, "decoder_sparse_step", None), getattr(config, "mlp_only_layers", None)
    if isinstance(step, int) and isinstance(dense, list) and step > 1:
        dense = {*dense, *(i for i in range(config.num_hidden_layers) if (i + 1) % step)}
        config.mlp_only_layers, config.decoder_sparse_step = sorted(dense), 1


def _periods(config: Any, values: dict[str, Any], kept: Sequence[int]) -> None:
    """Find a period and an offset that give the kept layers their kinds."""
    for period, offset in _PERIODS:
        if not isinstance(values.get(period), int):
            continue
        flags = [i % values[period] == values[offset] for i in kept]
        fits = (
            (p, o)
            for p in range(1, len(kept) + 2)
            for o in range(p)
            if all((j % p == o) == flag for j, flag in enumerate(flags))
        )
        found = next(fits, None)
        if found is None:
            raise _no_period(f"{period} {values[period]}, {offset} {values[offset]}", kept)
        # Both at once: a configuration may check that the offset is below the period.
        config.__dict__[period], config.__dict__[offset] = found


def _intervals(config: Any, values: dict[str, Any], kept: Sequence[int], have: int) -> None:
    """Find the interval and the end of ERNIE's expert layers."""
    step, start, end = (values.get(f"moe_layer_{part}") for part in ("interval", "start_index", "end_index"))
    if not (isinstance(step, int) and isinstance(start, int) and isinstance(end, int)):
        return
    end = end if end >= 0 else have - 1
    is_moe: Callable[[int], bool] = lambda i: (i + 1) % step == 0 and start <= i <= end  # noqa: E731
    flags = [is_moe(i) for i in kept]
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

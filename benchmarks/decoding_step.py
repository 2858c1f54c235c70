"""Seconds of a decoding step: transformers as it is, with grouped attention, and with a cache that grows in place, too.

    python -m benchmarks.decoding_step --model FOLDER
    python -m benchmarks.decoding_step --batch 16 64 --length 400

A step reads one new id for each row of a batch. The ways take turns; the figures are medians. Prints a Markdown table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks import _common

ROUNDS = 3


def main() -> None:
    """Time all ways for each batch size."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="short name or transformers folder")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--length", type=int, default=400, help="tokens before the step")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round; the first one is not counted")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM

    from evalkit.generation.engine import choose_dtype
    from shards.decoding import grouped_attention, growing_cache
    from shards.runtime import machine
    from teacher_dump.model.teachers import resolve

    machine.use_threads(torch)
    dtype = choose_dtype(options.dtype, deterministic=False).dtype
    model = AutoModelForCausalLM.from_pretrained(resolve(options.model).folder, dtype=getattr(torch, dtype)).eval()
    grouped = grouped_attention.register()
    ways = (("sdpa", None), (grouped, None), (grouped, growing_cache.make_room))
    rows = []
    for batch in options.batch:
        seconds: list[list[float]] = [[] for _ in ways]
        for _ in range(ROUNDS):
            for found, (attention, prepare) in zip(seconds, ways, strict=True):
                model.set_attn_implementation(attention)
                size = {"batch": batch, "length": options.length, "steps": options.steps}
                with torch.inference_mode():
                    found += step_seconds(model, torch, prepare=prepare, **size)
        plain, *faster = map(median, seconds)
        rows.append(
            [
                f"{batch}",
                f"{plain:.3f}",
                *(f"{each:.3f} ({plain / each:.1f})" for each in faster),
                f"{batch / faster[-1]:.0f}",
            ]
        )
    print(f"{options.model}, {options.length} tokens before the step, {dtype}; {machine.describe(torch)}\n")
    header = (
        "answers at a time",
        "transformers, s",
        "grouped attention, s (ratio)",
        "and growing cache, s (ratio)",
        "tokens/s",
    )
    print(_common.markdown_table(header, rows))


def step_seconds(
    model: Any, torch: Any, *, prepare: Callable[[Any], None] | None, batch: int, length: int, steps: int
) -> list[float]:
    """Return the seconds of each step but the first, after `prepare` has changed the cache of the prompt."""
    ids = torch.randint(10, 1000, (1, length), generator=torch.Generator().manual_seed(0))
    cache = model(ids, use_cache=True).past_key_values
    if prepare is not None:
        prepare(cache)
    cache.batch_select_indices(torch.zeros(batch, dtype=torch.long))
    mask = torch.ones(batch, length, dtype=torch.long)
    found = []
    for _ in range(steps):
        mask = torch.cat([mask, mask.new_ones(batch, 1)], dim=1)
        started = time.perf_counter()
        model(
            ids[:, -1:].expand(batch, 1),
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        found.append(time.perf_counter() - started)
    return found[1:]


if __name__ == "__main__":
    main()

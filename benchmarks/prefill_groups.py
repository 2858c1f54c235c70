"""Seconds of a prefill of many prompts: all padded to the longest one, and in groups of like length.

    python -m benchmarks.prefill_groups
    python -m benchmarks.prefill_groups --model FOLDER --protocol humaneval-evalplus-chat-v1 --prompts 64

The prompts are the first ones of a benchmark, as `evalkit score` asks them. The ways take turns; figures are medians.
Prints a Markdown table.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks import _common

WHOLE = 1 << 30


def main() -> None:
    """Time both ways for each number of prompts."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="short name or transformers folder")
    parser.add_argument("--task", default="humaneval")
    parser.add_argument("--protocol", default="humaneval-evalplus-chat-v1")
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evalkit.generation.engine import choose_dtype
    from shards.decoding import cached_model
    from shards.runtime import machine
    from teacher_dump.model.teachers import resolve

    machine.use_threads(torch)
    dtype = choose_dtype("auto", deterministic=False).dtype
    folder = resolve(options.model).folder
    model = cached_model.CachedModel(AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval())
    every = _prompts(AutoTokenizer.from_pretrained(folder), options.task, options.protocol)
    rows = []
    for number in options.prompts:
        prompts = every[:number]
        limits = (WHOLE, cached_model.CPU_PREFILL_TOKENS)
        seconds: dict[int, list[float]] = {limit: [] for limit in limits}
        for _ in range(options.rounds):
            for limit in limits:
                cached_model.CPU_PREFILL_TOKENS = limit
                started = time.perf_counter()
                with torch.inference_mode():
                    model.prefill(prompts)
                seconds[limit].append(time.perf_counter() - started)
        whole, grouped = (median(seconds[limit]) for limit in limits)
        in_groups = cached_model.groups(sorted(prompts, key=len), limits[1])
        padded = sum(len(group) * len(group[-1]) for group in in_groups)
        counts = (sum(map(len, prompts)), len(prompts) * max(map(len, prompts)), padded)
        times = (f"{whole:.2f}", f"{grouped:.2f}", f"{whole / grouped:.2f}")
        rows.append([str(number), *(f"{count:,}" for count in counts), *times])
    print(f"{options.model}, {options.protocol}, {dtype}; {machine.describe(torch)}\n")
    header = ("prompts", "tokens", "padded to the longest", "padded in groups", "together, s", "in groups, s", "ratio")
    print(_common.markdown_table(header, rows))


def _prompts(tokenizer: Any, task: str, protocol_name: str) -> list[list[int]]:
    """Return the token ids of a benchmark's prompts."""
    from evalkit.generation.base import Prompt
    from evalkit.generation.decoding import prompt_ids
    from evalkit.tasks import registry
    from evalkit.tasks.prompts import build_prompt
    from evalkit.tasks.protocols import find

    benchmark, protocol = registry.load(task), find(protocol_name, task=task, kind="solutions")
    texts = [(problem, build_prompt(protocol, problem, benchmark)) for problem in benchmark.problems]
    return [
        prompt_ids(tokenizer, Prompt(task_id=problem.task_id, index=0, text=text.text, user=text.user, seed=0))
        for problem, text in texts
    ]


if __name__ == "__main__":
    main()

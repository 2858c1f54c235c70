"""Speed of capture with vLLM, beside the same engine doing less and beside vLLM's own log-probabilities.

One process holds two engines of the same teacher and runs these ways in turn over the same rows:

- `prefill`: the pooling engine computes hidden states only. This is the cost of the teacher's layers.
- `floor`: the same engine computes logits at every position and discards them. No capture can be faster.
- `capture`: the product.
- `generate`: an ordinary vLLM engine generates one token. This is plain prefill.
- `prompt_logprobs`, `flat_logprobs`: the ordinary engine returns the 32 largest log-probabilities of each position, as
  objects or in flat form.

    python -m benchmarks.capture_rate --json capture_rate.json               # SmolLM2-135M, 16 rows of 512 tokens
    python -m benchmarks.capture_rate --model FOLDER --rows 64 --tokens 1024 --rounds 9

Prints the median tokens per second and the median, smallest and largest ratio to `floor`, round by round.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from shards.format.chunk import RowInfo
from shards.runtime.machine import DTYPES
from teacher_dump.engines.base import resolve_dtype
from teacher_dump.model.teachers import resolve
from teacher_dump.tasks.windowing import Window

TOP = 32
POOLED = ("prefill", "floor", "capture")
ORDINARY = ("generate", "prompt_logprobs", "flat_logprobs")


class Switch:
    """Extension of vLLM's worker that lets one engine do less than a capture."""

    def capture_way(self, way: str) -> None:
        """Choose what the pooler does from now on."""
        pooler = self.model_runner.model.pooler  # type: ignore[attr-defined]
        pooler.__dict__.pop("_records", None)
        if way != "capture":
            pooler._records = functools.partial(_discard, self.model_runner.model, way == "floor")  # type: ignore[attr-defined]


def _discard(model: Any, project: bool, hidden_TD: Any, chunks: Any) -> Any:
    """Replace the pooler's `_records`: compute logits in blocks of the same size, or none."""
    import torch

    from teacher_dump.engines.records import RecordSpec

    step = RecordSpec.block_positions(model.config.vocab_size)
    for i in range(0, len(hidden_TD) if project else 0, step):
        model.compute_logits(hidden_TD[i : i + step])
    return torch.zeros(len(hidden_TD), 1, dtype=torch.int32, device=hidden_TD.device)


def main() -> None:
    """Run all ways in turn and print one table."""
    options = parse()
    # The processes that vLLM starts import this module.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(_common.ROOT), os.environ.get("PYTHONPATH", "")))
    options.dtype = resolve_dtype(options.dtype).dtype
    model = resolve(options.model)
    rows = read_rows(model, options.rows, options.tokens)
    total = sum(len(row.tokens) for row in rows)
    ways = start(options, model, rows)
    for run in ways.values():
        run()  # warm-up: the first run of each way loads and allocates
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - begin)
            print(f"{way}: {total / seconds[way][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    results = [summary(way, seconds, total) for way in ways]
    print(table(results))
    result = {
        "machine": _common.provenance(with_torch=True),
        "model": options.model,
        "rows": options.rows,
        "tokens": total,
        "dtype": options.dtype,
        "rounds": options.rounds,
        "ways": results,
    }
    if options.json:
        _common.write_json(options.json, result)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--ways", nargs="+", default=[*POOLED, *ORDINARY], choices=[*POOLED, *ORDINARY])
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def read_rows(model: Any, count: int, tokens: int) -> list[Window]:
    """Return `count` windows of exactly `tokens` tokens of the standard library."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    ids: list[int] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        ids += tokenizer(path.read_text(errors="ignore"), add_special_tokens=False)["input_ids"]
        if len(ids) >= count * tokens:
            break
    return [
        Window(
            info=RowInfo(document=f"{i:064x}", window=0, byte_start=0, byte_end=0, source="", path="", licence=""),
            tokens=np.array(ids[i * tokens : (i + 1) * tokens], np.int32),
        )
        for i in range(count)
    ]


def start(options: argparse.Namespace, model: Any, rows: list[Window]) -> dict[str, Callable[[], object]]:
    """Load the engines that the ways need and return each way as a function."""
    from vllm import LLM, SamplingParams

    from teacher_dump.config import DumpConfig
    from teacher_dump.engines.settings import engine_config, record_layout
    from teacher_dump.engines.vllm import VllmEngine

    ways: dict[str, Callable[[], object]] = {}
    if set(options.ways) & set(POOLED):
        config = DumpConfig(
            model=options.model, dtype=options.dtype, window_tokens=options.tokens, out=Path("."), data=""
        )
        engine = VllmEngine(
            engine_config(config, model, record_layout(config, model)[1]),
            worker_extension_cls="benchmarks.capture_rate.Switch",
        )

        def pooled(way: str) -> None:
            engine._llm.collective_rpc("capture_way", args=(way,))
            for _ in engine.capture(rows):
                pass

        ways |= {way: functools.partial(pooled, way) for way in POOLED if way in options.ways}
    if set(options.ways) & set(ORDINARY):
        ordinary = LLM(
            model=str(model.folder),
            dtype=options.dtype,
            max_model_len=options.tokens + 1,
            max_logprobs=TOP,
            enable_prefix_caching=False,
            enforce_eager=True,
            disable_log_stats=True,
        )
        prompts = [{"prompt_token_ids": row.tokens.tolist()} for row in rows]
        sampling = {
            "generate": SamplingParams(max_tokens=1, temperature=0),
            "prompt_logprobs": SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=TOP),
            "flat_logprobs": SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=TOP, flat_logprobs=True),
        }
        ways |= {
            way: functools.partial(ordinary.generate, prompts, sampling[way], use_tqdm=False)
            for way in ORDINARY
            if way in options.ways
        }
    return ways


def summary(way: str, seconds: dict[str, list[float]], total: int) -> dict[str, Any]:
    """Return the median rate of a way and its ratios to `floor`."""
    ratios = sorted(f / s for f, s in zip(seconds.get("floor", seconds[way]), seconds[way], strict=True))
    return {
        "way": way,
        "tokens_per_second": round(total / statistics.median(seconds[way]), 1),
        "ratio_to_floor": round(statistics.median(ratios), 3),
        "ratio_least": round(ratios[0], 3),
        "ratio_most": round(ratios[-1], 3),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the Markdown table of all ways."""
    rows = [
        (
            row["way"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['ratio_to_floor']:.3f}",
            f"{row['ratio_least']:.3f} to {row['ratio_most']:.3f}",
        )
        for row in results
    ]
    return _common.markdown_table(("way", "tokens/s", "ratio to floor", "smallest to largest"), rows)


if __name__ == "__main__":
    main()

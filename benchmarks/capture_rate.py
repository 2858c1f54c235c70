"""How fast does vLLM capture, against the same engine doing less or reporting log-probs its own way?

One run, two engines of the same teacher side by side, the ways taken in turn over the same rows:

- `prefill`: pooling engine, hidden states only. What the teacher's layers cost.
- `floor`: the same engine, logits at every position made and thrown away. What no capture can do without.
- `capture`: the product.
- `generate`: an ordinary vLLM engine, one token asked for: plain prefill as users know it.
- `prompt_logprobs`, `flat_logprobs`: that engine asked for the 32 largest at each position, as objects and flat.

    python benchmarks/capture_rate.py --json capture_rate.json               # SmolLM2-135M, 16 rows of 512 tokens
    python benchmarks/capture_rate.py --model FOLDER --rows 64 --tokens 1024 --rounds 9

Prints medians of tokens per second and of each round's ratio to `floor`, with the smallest and largest ratio.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from shards.format.chunk import RowInfo  # noqa: E402
from shards.runtime.machine import DTYPES, describe  # noqa: E402
from teacher_dump.engines.base import resolve_dtype  # noqa: E402
from teacher_dump.model.teachers import resolve  # noqa: E402
from teacher_dump.tasks.windowing import Window  # noqa: E402

os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))  # for vLLM's own processes

TOP = 32
POOLED = ("prefill", "floor", "capture")
ORDINARY = ("generate", "prompt_logprobs", "flat_logprobs")


class Switch:
    """In vLLM's worker: lets one engine do less than a capture."""

    def capture_way(self, way: str) -> None:
        pooler = self.model_runner.model.pooler  # type: ignore[attr-defined]
        pooler.__dict__.pop("_records", None)
        if way != "capture":
            pooler._records = functools.partial(_discard, self.model_runner.model, way == "floor")  # type: ignore[attr-defined]


def _discard(model: Any, project: bool, hidden_TD: Any, chunks: Any) -> Any:
    """Stand in for the pooler's `_records`: logits in pieces of the same size, or none at all."""
    import torch

    from teacher_dump.engines.records import RecordSpec

    step = RecordSpec.block_positions(model.config.vocab_size)
    for i in range(0, len(hidden_TD) if project else 0, step):
        model.compute_logits(hidden_TD[i : i + step])
    return torch.zeros(len(hidden_TD), 1, dtype=torch.int32, device=hidden_TD.device)


def main() -> None:
    options = parse()
    options.dtype = resolve_dtype(options.dtype).dtype
    model = resolve(options.model)
    rows = read_rows(model, options.rows, options.tokens)
    total = sum(len(row.tokens) for row in rows)
    ways = start(options, model, rows)
    for run in ways.values():
        run()  # the first run of each loads and allocates
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - begin)
            print(f"{way}: {total / seconds[way][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    found = [summary(way, seconds, total) for way in ways]
    print(table(found))
    result = {
        "machine": machine(),
        "model": options.model,
        "rows": options.rows,
        "tokens": total,
        "dtype": options.dtype,
        "rounds": options.rounds,
        "ways": found,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    os._exit(0)  # vLLM's processes end with this one


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    """Load the engines that the ways need; return each way as a call."""
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
        asked = {
            "generate": SamplingParams(max_tokens=1, temperature=0),
            "prompt_logprobs": SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=TOP),
            "flat_logprobs": SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=TOP, flat_logprobs=True),
        }
        ways |= {
            way: functools.partial(ordinary.generate, prompts, asked[way], use_tqdm=False)
            for way in ORDINARY
            if way in options.ways
        }
    return ways


def summary(way: str, seconds: dict[str, list[float]], total: int) -> dict[str, Any]:
    ratios = sorted(f / s for f, s in zip(seconds.get("floor", seconds[way]), seconds[way], strict=True))
    return {
        "way": way,
        "tokens_per_second": round(total / statistics.median(seconds[way]), 1),
        "ratio_to_floor": round(statistics.median(ratios), 3),
        "ratio_least": round(ratios[0], 3),
        "ratio_most": round(ratios[-1], 3),
    }


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| way | tokens/s | of the floor | least to most |", "|---|---|---|---|"]
    lines += [
        f"| {f['way']} | {f['tokens_per_second']:.0f} | {f['ratio_to_floor']:.3f} | "
        f"{f['ratio_least']:.3f} to {f['ratio_most']:.3f} |"
        for f in found
    ]
    return "\n".join(lines)


def machine() -> str:
    import torch

    return f"{describe(torch)}, torch {torch.__version__}"


if __name__ == "__main__":
    main()

"""Speed of capture with transformers, beside the same engine doing less.

One engine runs these ways in turn over the same rows of random ids:

- `prefill`: the layers only.
- `floor`: also the logits of every position, which are discarded. No capture can be faster.
- `capture`: the product.

    python -m benchmarks.capture_transformers                                      # SmolLM2-135M
    python -m benchmarks.capture_transformers --random 2048x22 --rows 64 --tokens 1024 --rounds 9

`--random WIDTHxLAYERS` makes a Llama with random weights of that shape: the cost does not depend on the values. Prints
the median tokens per second and the median, smallest and largest ratio to `floor`, round by round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import _common
from benchmarks.capture_rate import summary, table
from shards.format.chunk import RowInfo
from shards.runtime.machine import DTYPES
from teacher_dump.tasks.windowing import Window

WAYS = ("prefill", "floor", "capture")


def main() -> None:
    """Run all ways in turn and print one table."""
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        engine = load(options, Path(scratch))
        rows = random_rows(options)
        ways = {way: way_of(way, engine, rows) for way in WAYS}
        total = options.rows * options.tokens
        for run in ways.values():
            run()  # warm-up
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                begin = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - begin)
        engine.close()
    results = [summary(way, seconds, total) for way in ways]
    print(table(results))
    facts = {key: value for key, value in vars(options).items() if key != "json"}
    result = {"machine": _common.provenance(with_torch=True), **facts, "ways": results}
    print(json.dumps(result))
    if options.json:
        _common.write_json(options.json, result)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="short name or folder")
    parser.add_argument("--random", default="", metavar="WIDTHxLAYERS")
    parser.add_argument("--vocab", type=int, default=32_000, help="vocabulary of --random")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(options: argparse.Namespace, scratch: Path) -> Any:
    """Return the engine."""
    from teacher_dump.engines.base import EngineConfig, resolve_dtype
    from teacher_dump.engines.hf import TransformersEngine
    from teacher_dump.engines.records import RecordSpec
    from teacher_dump.model.teachers import resolve

    if options.random:
        folder, vocab_size = random_model(options, scratch), options.vocab
    else:
        model = resolve(options.model)
        folder, vocab_size = model.folder, model.teacher.vocab_size
    options.vocab, options.dtype = vocab_size, resolve_dtype(options.dtype).dtype
    return TransformersEngine(
        EngineConfig(
            folder=folder,
            vocab_size=vocab_size,
            spec=RecordSpec(threshold=0.04, temperatures=(1.5, 2.0, 4.0)),
            seed=0,
            dtype=options.dtype,
            window_tokens=options.tokens,
            tensor_parallel_size=1,
            whitespace_ids=tuple(range(0, vocab_size, 7)),
        )
    )


def random_model(options: argparse.Namespace, folder: Path) -> Path:
    """Save a Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    width, layers = map(int, options.random.split("x"))
    config = LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256),
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def random_rows(options: argparse.Namespace) -> list[Window]:
    """Return rows of random ids."""
    ids = np.random.default_rng(0).integers(options.vocab, size=(options.rows, options.tokens), dtype=np.int32)
    return [
        Window(
            info=RowInfo(document=f"{i:064x}", window=0, byte_start=0, byte_end=0, source="", path="", licence=""),
            tokens=row,
        )
        for i, row in enumerate(ids)
    ]


def way_of(way: str, engine: Any, rows: list[Window]) -> Callable[[], None]:
    """Return a way as a function."""

    def run() -> None:
        with patched(way, engine):
            for _ in engine.capture(rows):
                pass
        synchronize()

    return run


@contextmanager
def patched(way: str, engine: Any) -> Iterator[None]:
    """Let the engine do less: no records, or neither logits nor records."""
    from teacher_dump.engines import hf

    nothing = np.zeros((1, 1), np.int32)
    if way == "prefill":
        with mock.patch.object(engine, "_records", return_value=nothing):
            yield
    elif way == "floor":
        with mock.patch.object(hf, "sparsify", lambda logits_PV, *arguments, **settings: _Discarded(logits_PV)):
            yield
    else:
        yield


class _Discarded:
    """Stands in for records: holds nothing."""

    def __init__(self, logits_PV: Any) -> None:
        self._nothing = logits_PV[:1, :1]

    def pack(self) -> Any:
        """Return one number of the block, so that its logits are awaited as records are."""
        return self._nothing.float()


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

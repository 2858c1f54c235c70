"""What does a token cost the host, between the device and the finished shard?

Takes packed records as a device returned them (recorded once, with the transformers engine) and runs everything that
follows: transport between vLLM's processes (pickled from the worker to the scheduler, msgpack to the caller, each
way written and read), rows, encoding, compression, digests, writing with fsync, the report at the end. CPU time of all
threads, in microseconds per token. The promise is 15, so that one core keeps up with 60,000 tokens per second.

    python benchmarks/capture_host.py --recording /tmp/records.npz                        # made if it is not there
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.capture_rate import machine, read_rows
from shards.format.chunk import RowInfo
from shards.format.manifest import Manifest, ShardEntry, Tokenizer
from shards.format.schema import Layout
from shards.read import Cache
from shards.reports.statistics import measure
from shards.write import ShardWriter
from teacher_dump.config import DumpConfig
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.records import to_row
from teacher_dump.engines.registry import start_engine
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.model.teachers import Model, resolve
from teacher_dump.tasks.windowing import Window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, required=True, help="packed records (.npz)")
    parser.add_argument("--rows", type=int, default=24, help="rows to record, 512 tokens each")
    parser.add_argument("--tokens", type=int, default=300_000, help="tokens to run; the recording is repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    config = DumpConfig(model="smollm2-135m", data="stdlib", out=Path("."))
    model = resolve(config.model)
    layout, spec = record_layout(config, model)
    if not options.recording.exists():
        record(options.recording, read_rows(model, options.rows, 512), engine_config(config, model, spec))
    with np.load(options.recording) as arrays:
        recorded = list(zip(arrays["tokens"], arrays["packed"], strict=True))
    count = -(-options.tokens // sum(len(tokens) for tokens, _ in recorded))
    work = [(window(i, tokens), packed) for i, (tokens, packed) in enumerate(recorded * count)]
    num_tokens = sum(len(w.tokens) for w, _ in work)

    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        spent: dict[str, float] = {}
        with clock(spent, "transport"):
            for _, packed in work:
                transport(packed)
        with tempfile.TemporaryDirectory() as folder:
            with clock(spent, "rows, encoding, compression, digests, writing"):
                writer = ShardWriter(
                    Path(folder), "000000.arrow", layout=layout, task="000000", fingerprint="", chunk_tokens=65_536
                )
                with writer:
                    for one, packed in work:
                        writer.write(to_row(one, packed, spec))
                    entry = writer.close()
            with clock(spent, "report"):
                measure(Cache.of(Path(folder), manifest(layout, model, entry)))
        rounds.append(spent)
    found = {
        stage: round(statistics.median(spent[stage] for spent in rounds) / num_tokens * 1e6, 2) for stage in rounds[0]
    }
    found["in all"] = round(sum(found.values()), 2)
    print("| stage | CPU microseconds per token |\n|---|---|")
    for stage, cost in found.items():
        print(f"| {stage} | {cost:.2f} |")
    if options.json:
        about = {"machine": machine(), "tokens": num_tokens, "rounds": options.rounds}
        options.json.write_text(json.dumps(about | {"microseconds_per_token": found}, indent=1) + "\n")


@contextmanager
def clock(spent: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.process_time()
    yield
    spent[stage] = time.process_time() - begin


def record(path: Path, rows: list[Window], taught: EngineConfig) -> None:
    """Keep what the reduction returned for `rows`."""
    engine = start_engine("transformers", taught)
    packed = list(engine.capture(rows))
    engine.close()
    np.savez(path, tokens=np.stack([row.tokens for row in rows]), packed=np.stack(packed))


def window(i: int, tokens: np.ndarray[Any, np.dtype[np.int32]]) -> Window:
    text = RowInfo(
        document=f"{i:064x}", window=0, byte_start=0, byte_end=1, source="stdlib", path=f"{i}.py", licence="PSF-2.0"
    )
    return Window(info=text, tokens=tokens)


def manifest(layout: Layout, model: Model, entry: ShardEntry) -> Manifest:
    tokenizer = Tokenizer(fingerprint="", vocab_size=model.teacher.vocab_size, prefix_tokens=model.prefix_tokens)
    return Manifest(
        layout=layout, teacher=model.teacher, tokenizer=tokenizer, engine={}, corpus={}, settings={}, code={},
        files=(), shards=(entry,), report={},
    )  # fmt: skip


def transport(packed: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """Take one row's records through the two hops between vLLM's processes."""
    import torch
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    tensor = torch.from_numpy(packed)
    buffers: list[pickle.PickleBuffer] = []
    raw = pickle.dumps(tensor, protocol=5, buffer_callback=buffers.append)
    tensor = pickle.loads(raw, buffers=buffers)
    MsgpackDecoder(torch.Tensor).decode(MsgpackEncoder().encode(tensor))


if __name__ == "__main__":
    main()

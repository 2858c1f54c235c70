"""CPU time of the host per token, from the device's packed records to the finished shard.

The packed records come from the transformers engine and are recorded once. The script then runs everything that
follows: transport between vLLM's processes (pickle from the worker to the scheduler, msgpack to the caller, each way
written and read), rows, encoding, compression, digests, writing with fsync, and the report at the end. The unit is us
of CPU time of all threads per token. The limit is 15: then one core keeps up with 60,000 tokens per second.

    python -m benchmarks.capture_host --recording /tmp/records.npz         # makes the recording if it is missing
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from benchmarks.capture_rate import read_rows
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
from teacher_dump.model.teachers import LocalTeacher, resolve
from teacher_dump.tasks.windowing import Window


def main() -> None:
    """Run all stages and print one table."""
    parser = _common.parser(__doc__)
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
                    for row, packed in work:
                        writer.write(to_row(row, packed, spec))
                    entry = writer.close()
            with clock(spent, "report"):
                measure(Cache.of(Path(folder), manifest(layout, model, entry)))
        rounds.append(spent)
    costs = {
        stage: round(statistics.median(spent[stage] for spent in rounds) / num_tokens * 1e6, 2) for stage in rounds[0]
    }
    costs["in all"] = round(sum(costs.values()), 2)
    rows = [(stage, f"{cost:.2f}") for stage, cost in costs.items()]
    print(_common.markdown_table(("stage", "CPU microseconds per token"), rows))
    if options.json:
        about = {"machine": _common.provenance(with_torch=True), "tokens": num_tokens, "rounds": options.rounds}
        _common.write_json(options.json, about | {"microseconds_per_token": costs})


@contextmanager
def clock(spent: dict[str, float], stage: str) -> Iterator[None]:
    """Store the CPU seconds of the block under the name of its stage."""
    begin = time.process_time()
    yield
    spent[stage] = time.process_time() - begin


def record(path: Path, rows: list[Window], config: EngineConfig) -> None:
    """Save the packed records of `rows`."""
    engine = start_engine("transformers", config)
    packed = list(engine.capture(rows))
    engine.close()
    np.savez(path, tokens=np.stack([row.tokens for row in rows]), packed=np.stack(packed))


def window(i: int, tokens: np.ndarray[Any, np.dtype[np.int32]]) -> Window:
    """Return a window with made-up provenance."""
    info = RowInfo(
        document=f"{i:064x}", window=0, byte_start=0, byte_end=1, source="stdlib", path=f"{i}.py", licence="PSF-2.0"
    )
    return Window(info=info, tokens=tokens)


def manifest(layout: Layout, model: LocalTeacher, entry: ShardEntry) -> Manifest:
    """Return the manifest of a cache with one shard."""
    tokenizer = Tokenizer(fingerprint="", vocab_size=model.teacher.vocab_size, prefix_tokens=model.prefix_tokens)
    return Manifest(
        layout=layout, teacher=model.teacher, tokenizer=tokenizer, engine={}, corpus={}, settings={}, code={},
        files=(), shards=(entry,), report={},
    )  # fmt: skip


def transport(packed: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """Serialise and restore one row's records as the two hops between vLLM's processes do."""
    import torch
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    tensor = torch.from_numpy(packed)
    buffers: list[pickle.PickleBuffer] = []
    raw = pickle.dumps(tensor, protocol=5, buffer_callback=buffers.append)
    tensor = pickle.loads(raw, buffers=buffers)
    MsgpackDecoder(torch.Tensor).decode(MsgpackEncoder().encode(tensor))


if __name__ == "__main__":
    main()

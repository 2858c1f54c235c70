"""Cost of streaming for a training step, beside the same steps from memory, and the padding of packed batches.

Runs the same optimizer steps on the same rows in turn: from a list in memory; through the reading thread (ranged read,
digest check, decompression, decoding, packing) from a local folder; and from an S3 server on loopback in a process of
its own. `ratio` is the median over rounds of the medians over the steps of a pass; the time of a step includes the wait
for it. `waiting` is the share of all step time spent waiting for the next step, without the first of a pass, which has
no earlier step to overlap with. On a busy machine `waiting` is the reliable figure. `reading_alone_tokens_per_s` is the
rate of one reading thread: a slower student never waits. `waste` is the share of padding in all batches of an epoch.
Prints one JSON object.

    python -m benchmarks.student_streaming --shards demo/shards/
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import _common
from shards.runtime.machine import DTYPES


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", default="demo/shards/")
    parser.add_argument("--student", default="")
    parser.add_argument("--student-layers", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    import torch

    import shards
    from student_train.config import Config
    from student_train.data.loader import Rows, Stream, read_step
    from student_train.training.build_run import build_run
    from student_train.training.distributed import init_distributed
    from student_train.training.hardware import settle
    from student_train.training.runtime import Runtime
    from student_train.training.state import Handover
    from student_train.training.train_step import take_step

    asked = Config(
        shards=options.shards,
        student=options.student,
        student_layers=options.student_layers,
        batch_tokens=options.batch_tokens,
        held_out=0.0,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
    )
    with init_distributed(asked.device) as world, s3_copy(Path(options.shards)) as url:
        hardware = settle(asked, device=world.device)
        config = hardware.config
        places = {"local": shards.open(options.shards), "s3": shards.open(url)}
        this = build_run(config, places["local"], Handover(segments=[]), Runtime(world=world))
        plan = this.first_leg.plan
        read, reading = {}, {}
        for name, cache in places.items():
            rows = Rows(cache)
            started = time.perf_counter()
            read[name] = [read_step(rows, plan, this.batches, step=s) for s in range(plan.steps_per_epoch)]
            tokens = sum(step.num_positions for step in read[name])
            reading[name] = round(tokens / (time.perf_counter() - started))

        def one_pass(steps: Any, waited: list[float], total: list[float]) -> float:
            took = []
            started = time.perf_counter()
            for step in steps:
                waited.append(time.perf_counter() - started if took else 0.0)
                take_step(
                    this.distiller,
                    this.optimizer,
                    step.batches,
                    number=step.number,
                    lr=1e-6,
                    clip=1.0,
                    world=world,
                    weights=this.objective.weights(this.objective.initial_state()),
                )
                if world.device.type == "cuda":
                    torch.cuda.synchronize()
                took.append(time.perf_counter() - started)
                started = time.perf_counter()
            total += took
            return statistics.median(took)

        ready = read["local"][: options.steps]
        one_pass(ready, [], [])
        waited: dict[str, list[float]] = {name: [] for name in ("memory", *places)}
        total: dict[str, list[float]] = {name: [] for name in ("memory", *places)}
        medians: dict[str, list[float]] = {"memory": [], **{name: [] for name in places}}
        for turn in range(options.rounds):
            for name in sorted(medians, reverse=turn % 2 == 1):
                with ExitStack() as stack:
                    steps = ready
                    if name in places:
                        steps = stack.enter_context(
                            Stream(places[name], plan, this.batches, first=0, last=len(ready), prefetch=4)
                        )
                    medians[name].append(one_pass(steps, waited[name], total[name]))
    ratios = {name: [a / b for a, b in zip(medians[name], medians["memory"], strict=True)] for name in ("local", "s3")}
    batches = [batch for step in read["local"] for batch in step.batches]
    print(
        json.dumps(
            {
                "ratio": {name: round(statistics.median(found), 4) for name, found in ratios.items()},
                "ratios": {name: [round(r, 4) for r in found] for name, found in ratios.items()},
                "waiting": {name: round(sum(waited[name]) / sum(total[name]), 5) for name in places},
                "step_s": {name: round(statistics.median(found), 4) for name, found in medians.items()},
                "reading_alone_tokens_per_s": reading,
                "waste": round(waste(batches), 5),
                "rows": sum(len(b.rows) for b in batches),
                "steps": len(ready),
                "rounds": options.rounds,
                "batch_tokens": options.batch_tokens,
                "device": str(world.device),
                **hardware.to_dict(),
                "torch": torch.__version__,
                "date": _common.today(),
            }
        )
    )


def waste(batches: list[Any]) -> float:
    """Return the share of padding; a row has one more token than positions with a target."""
    places = sum(batch.tokens_BT.numel() for batch in batches)
    return 1 - sum(batch.num_positions + len(batch.rows) for batch in batches) / places


@contextmanager
def s3_copy(folder: Path) -> Iterator[str]:
    """Serve a copy of `folder` from an S3 server on loopback, in a process of its own; yield its URL."""
    import fsspec

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    fsspec.config.conf["s3"] = {
        "endpoint_url": address,
        "key": "nobody",
        "secret": "nothing",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(address).close()
                    break
                except OSError:
                    time.sleep(0.1)
            urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT", data=b"")).close()
            place = fsspec.filesystem("s3")
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                place.put_file(str(path), f"bucket/cache/{path.relative_to(folder)}")
            yield "s3://bucket/cache"
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()

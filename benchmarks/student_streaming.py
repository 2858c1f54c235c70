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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _common
from shards.runtime.machine import DTYPES

if TYPE_CHECKING:
    import shards
    from student_train.data.loader import Step
    from student_train.training.run_context import RunContext


def main() -> None:
    """Run all ways in turn and print one JSON object."""
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
    from student_train.data.mixture import Mixture
    from student_train.training.build_run import build_run
    from student_train.training.distributed import init_distributed
    from student_train.training.hardware import settle
    from student_train.training.runtime import Runtime
    from student_train.training.state import Handover

    requested = Config(
        shards=(options.shards,),
        student=options.student,
        student_layers=options.student_layers,
        batch_tokens=options.batch_tokens,
        held_out=0.0,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
    )
    with init_distributed(requested.device) as world, s3_copy(Path(options.shards)) as url:
        hardware = settle(requested, device=world.device)
        caches = {"local": shards.open(options.shards), "s3": shards.open(url)}
        mixture = Mixture(caches=(caches["local"],), shares=None)
        context = build_run(hardware.config, mixture, Handover(segments=[]), Runtime(world=world))
        read = {name: read_epoch(context, cache) for name, cache in caches.items()}
        steps = read["local"][0][: options.steps]
        passes = time_passes(context, caches, steps, rounds=options.rounds)
    batches = [batch for step in read["local"][0] for batch in step.batches]
    facts = {
        "reading_alone_tokens_per_s": {name: rate for name, (_, rate) in read.items()},
        "waste": round(waste(batches), 5),
        "rows": sum(len(batch.rows) for batch in batches),
        "steps": len(steps),
        "rounds": options.rounds,
        "batch_tokens": options.batch_tokens,
        "device": str(world.device),
        **hardware.to_dict(),
        "torch": torch.__version__,
        "date": _common.today(),
    }
    print(json.dumps(summary(passes) | facts))


@dataclass
class Passes:
    """Times of the passes of one way, in seconds."""

    medians: list[float] = field(default_factory=list)
    """Median step of each pass."""
    waited: float = 0.0
    total: float = 0.0


def read_epoch(context: RunContext, cache: shards.Cache) -> tuple[list[Step], int]:
    """Return the steps of an epoch and the tokens per second of reading them in one thread."""
    from student_train.data.loader import Rows, read_step

    rows, plan = Rows([cache]), context.first_leg.plan
    started = time.perf_counter()
    steps = [read_step(rows, plan, context.batches, step=step) for step in range(plan.steps_per_epoch)]
    seconds = time.perf_counter() - started
    return steps, round(sum(step.num_positions for step in steps) / seconds)


def time_passes(
    context: RunContext, caches: dict[str, shards.Cache], steps: list[Step], *, rounds: int
) -> dict[str, Passes]:
    """Take the same steps from memory and through the reading thread of each cache, in turn."""
    from student_train.data.loader import Stream

    run_pass(context, steps, Passes())  # warm-up
    passes = {name: Passes() for name in ("memory", *caches)}
    for turn in range(rounds):
        for name in sorted(passes, reverse=turn % 2 == 1):
            if name == "memory":
                run_pass(context, steps, passes[name])
                continue
            plan = context.first_leg.plan
            with Stream([caches[name]], plan, context.batches, first=0, last=len(steps), prefetch=4) as stream:
                run_pass(context, stream, passes[name])
    return passes


def run_pass(context: RunContext, steps: Iterable[Step], passes: Passes) -> None:
    """Take the steps of one pass and add its times."""
    import torch

    from student_train.training.train_step import UpdateSettings, take_step

    weights = context.objective.weights(context.objective.initial_state())
    update = UpdateSettings(lr=1e-6, clip=1.0, weights=weights)
    seconds: list[float] = []
    started = time.perf_counter()
    for step in steps:
        passes.waited += time.perf_counter() - started if seconds else 0.0
        take_step(
            context.distiller,
            context.optimizer,
            step.batches,
            number=step.number,
            update=update,
            world=context.world,
        )
        if context.world.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    passes.total += sum(seconds)
    passes.medians.append(statistics.median(seconds))


def summary(passes: dict[str, Passes]) -> dict[str, Any]:
    """Return ratios to memory, shares of waiting and seconds per step."""
    memory = passes["memory"].medians
    streamed = {name: way for name, way in passes.items() if name != "memory"}
    ratios = {name: [a / b for a, b in zip(way.medians, memory, strict=True)] for name, way in streamed.items()}
    return {
        "ratio": {name: round(statistics.median(values), 4) for name, values in ratios.items()},
        "ratios": {name: [round(value, 4) for value in values] for name, values in ratios.items()},
        "waiting": {name: round(way.waited / way.total, 5) for name, way in streamed.items()},
        "step_s": {name: round(statistics.median(way.medians), 4) for name, way in passes.items()},
    }


def waste(batches: list[Any]) -> float:
    """Return the share of padding; a row has one more token than positions with a target."""
    places = sum(batch.tokens_BT.numel() for batch in batches)
    share: float = 1 - sum(batch.num_positions + len(batch.rows) for batch in batches) / places
    return share


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

"""What does streaming cost a training step, against the same steps already in memory?

Trains nothing worth keeping: takes the same optimiser steps on the same rows twice, once from a list in memory, once
through the reading thread (digest check, decompression, decoding, packing), and compares medians. Prints one JSON
object.

    python benchmarks/student_streaming.py --shards demo/shards/ --student-layers 6 --steps 12
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default="demo/shards/")
    parser.add_argument("--student", default="")
    parser.add_argument("--student-layers", type=int, default=6)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    import torch

    import shards
    from student_train import train
    from student_train.config import Config
    from student_train.loader import Rows, Step, Stream, read_step
    from student_train.parallel import join
    from student_train.session import Signals
    from student_train.step import take_step

    torch.set_num_threads(options.threads)
    config = Config(
        shards=options.shards,
        student=options.student,
        student_layers=options.student_layers,
        batch_tokens=options.batch_tokens,
        held_out=0.0,
        device=options.device,
    )
    cache = shards.open(config.shards)
    with join(config.device) as world:
        this = train.prepare(config, cache, [], Signals(), world)
        rows = Rows(cache)
        started = time.perf_counter()
        ready = [read_step(rows, this.first_leg.plan, this.batches, step=s) for s in range(options.steps)]
        reading_s = time.perf_counter() - started
        tokens = sum(step.num_positions for step in ready)

        def one(step: Step) -> None:
            take_step(this.distiller, this.optimizer, step.batches, number=step.number, lr=1e-6, clip=1.0, world=world)
            if world.device.type == "cuda":
                torch.cuda.synchronize()

        one(ready[0])
        memory_s, stream_s = [], []
        for _ in range(options.rounds):
            for step in ready:
                started = time.perf_counter()
                one(step)
                memory_s.append(time.perf_counter() - started)
            with Stream(cache, this.first_leg.plan, this.batches, first=0, last=options.steps, prefetch=4) as stream:
                started = time.perf_counter()
                for step in stream:
                    one(step)
                    stream_s.append(time.perf_counter() - started)
                    started = time.perf_counter()
    in_memory, streaming = statistics.median(memory_s), statistics.median(stream_s)
    print(
        json.dumps(
            {
                "ratio": round(streaming / in_memory, 4),
                "in_memory_step_s": round(in_memory, 4),
                "streaming_step_s": round(streaming, 4),
                "reading_alone_tokens_per_s": round(tokens / reading_s),
                "steps": options.steps,
                "rounds": options.rounds,
                "batch_tokens": options.batch_tokens,
                "device": str(world.device),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "date": time.strftime("%Y-%m-%d"),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Time of training steps on responses, beside steps on the same rows in which every token has a position.

Takes the same optimiser steps on the same tokens in turn, in one process:

- `responses`: the rows of the cache; only the tokens after the context carry loss.
- `no-context`: the same rows with context 1. The records of their positions are those of the response, repeated.

Prints one line of JSON per way: tokens read per second, and the time over that of `no-context`, round by round.
`cpu_over_no_context` is the ratio of the CPU time of all threads: compare this one on a busy machine.

    python -m benchmarks.response_rate --shards responses/ --student smollm2-135m
    python -m benchmarks.response_rate --shards responses/ --objective sft --device cuda
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _common
from benchmarks.training_rate import build, product_step, read_steps, run_pass
from shards.format.chunk import Chunk
from shards.runtime.machine import DTYPES

if TYPE_CHECKING:
    from student_train.data.loader import Step
    from student_train.training.run_context import RunContext

BASELINE = "no-context"
WAYS = ("responses", BASELINE)
_PER_POSITION = ("label_logp", "tail_mass", "log_z", "whitespace_logp", "entropy")


def main() -> None:
    """Measure both ways in turn and print one JSON object per way."""
    options = parse()
    import shards
    from student_train.training.distributed import init_distributed

    with init_distributed(options.device) as world:
        cache = shards.open(options.shards)
        context = build(options, cache, world, options.objective)
        steps = {
            "responses": read_steps(context, cache, options.steps),
            BASELINE: read_steps(context, WithoutContext(cache), options.steps),
        }
        take = product_step(context)
        wall: dict[str, list[float]] = {way: [] for way in WAYS}
        cpu: dict[str, list[float]] = {way: [] for way in WAYS}
        for way in WAYS:
            run_pass(take, steps[way][:1], world.device)  # warm-up
        for turn in range(options.rounds):
            for way in sorted(WAYS, reverse=turn % 2 == 1):
                started = time.process_time()
                seconds, _ = run_pass(take, steps[way], world.device)
                cpu[way].append(time.process_time() - started)
                wall[way].append(seconds)
        for way in WAYS:
            print(json.dumps(line_of(way, wall, cpu, steps[way]) | settings(options, context)), flush=True)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", required=True, help="a cache of responses")
    parser.add_argument("--student", default="teacher")
    parser.add_argument("--student-layers", type=int, default=0)
    parser.add_argument("--objective", default="kd", choices=("kd", "sft"))
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


class WithoutContext:
    """A cache whose rows have context 1."""

    def __init__(self, cache: Any) -> None:
        """Read rows from `cache`."""
        self._cache = cache

    def __len__(self) -> int:
        return len(self._cache)

    def __getitem__(self, i: int) -> Any:
        return _Rows(self._cache[i])


class _Rows:
    """The rows of a chunk, each with context 1."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk

    def row(self, r: int) -> Chunk:
        """Return row `r` as a chunk of one row."""
        return without_context(self._chunk.row(r))


def without_context(row: Chunk) -> Chunk:
    """Return a row with a position for each token but the first; its records are those of the response, repeated."""
    num_positions = len(row.tokens) - 1
    source = np.arange(num_positions) % len(row.label_logp)
    changes: dict[str, Any] = {name: getattr(row, name)[source] for name in _PER_POSITION}
    for kind, values in (("head", ("head_ids", "head_probs")), ("draw", ("draw_ids",))):
        starts = getattr(row, f"{kind}_starts")
        counts = np.diff(starts)[source]
        ends = np.cumsum(counts)
        entries = np.arange(int(counts.sum())) + np.repeat(starts[source] - (ends - counts), counts)
        changes[f"{kind}_starts"] = np.concatenate(([0], ends))
        changes |= {name: getattr(row, name)[entries] for name in values}
    info = dataclasses.replace(row.rows[0], context=1, messages="")
    return dataclasses.replace(row, rows=(info,), **changes)


def line_of(way: str, wall: dict[str, list[float]], cpu: dict[str, list[float]], steps: list[Step]) -> dict[str, Any]:
    """Return the figures of a way."""
    read = sum(step.rows["context_tokens"] + step.rows["response_tokens"] for step in steps)
    ratios = [own / base for own, base in zip(wall[way], wall[BASELINE], strict=True)]
    cpu_ratios = [own / base for own, base in zip(cpu[way], cpu[BASELINE], strict=True)]
    return {
        "way": way,
        "tokens": read,
        "with_loss": sum(step.num_positions for step in steps),
        "tokens_per_s": round(read / statistics.median(wall[way])),
        "over_no_context": round(statistics.median(ratios), 3),
        "least_to_most": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_over_no_context": round(statistics.median(cpu_ratios), 3),
    }


def settings(options: argparse.Namespace, context: RunContext) -> dict[str, Any]:
    """Return what every line reports of the run."""
    return {
        "student": options.student,
        "objective": options.objective,
        "loss": context.objective.description,
        "batch_tokens": options.batch_tokens,
        "rounds": options.rounds,
        "dtype": context.config.dtype,
        "provenance": _common.provenance(with_torch=True),
    }


if __name__ == "__main__":
    main()

"""Speed and memory of training steps from records, beside ordinary loops on the same tokens.

Takes the same optimiser steps on the same batches in turn, in one process:

- `kd`, `sft`: the product, from a cache: records mixed with cross-entropy, and cross-entropy alone.
- `plain-sft`: an ordinary loop in transformers: all logits, cross-entropy, autocast, AdamW.
- `live-kd`: the same loop with the teacher in memory: a forward pass of it, and the full KL divergence.

The ordinary loops read a packed batch as plain sequences: the same number of tokens, without the mask between rows.
Prints one line of JSON per way: median tokens per second over the rounds, ratio to `--against` round by round, and on a
GPU the peak of allocated memory above the state of all models (weights, gradients, optimiser).

    python -m benchmarks.training_rate --shards demo/shards/ --student-layers 4 --batch-tokens 1024
    python -m benchmarks.training_rate --shards shards/ --batch-tokens 32768 --micro-tokens 32768 --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import _common
from shards.runtime.machine import DTYPES

if TYPE_CHECKING:
    import torch

    from student_train.data.loader import Step
    from student_train.training.run_context import RunContext

WAYS = ("kd", "sft", "plain-sft", "live-kd")
StepFunction = Callable[["Step"], None]


def main() -> None:
    """Measure all ways in turn and print one JSON object per way."""
    options = parse()
    import torch

    import shards
    from student_train.training.distributed import init_distributed

    with init_distributed(options.device) as world:
        cache = shards.open(options.shards)
        contexts = {objective: build(options, cache, world, objective) for objective in ("kd", "sft")}
        steps = read_steps(contexts["kd"], cache, options.steps)
        take = {way: step_function(way, options, contexts, world.device) for way in options.ways}
        measured = {way: Measured(seconds=[], peak_bytes=0) for way in take}
        for function in take.values():
            run_pass(function, steps[:2], world.device)  # warm-up
        for turn in range(options.rounds):
            for way in sorted(take, reverse=turn % 2 == 1):
                measured[way].add(run_pass(take[way], steps, world.device))
        tokens = sum(step.num_positions for step in steps)
        for way in take:
            line = summary(way, measured, options.against, tokens) | settings(options, torch, world.device, tokens)
            print(json.dumps(line), flush=True)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", default="demo/shards/")
    parser.add_argument("--student", default="teacher")
    parser.add_argument("--student-layers", type=int, default=0)
    parser.add_argument("--teacher", default="smollm2-135m", help="teacher of live-kd: short name or folder")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--micro-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--against", default="plain-sft", choices=WAYS)
    return parser.parse_args()


def build(options: argparse.Namespace, cache: Any, world: Any, objective: str) -> RunContext:
    """Return a run of the product that takes steps."""
    from student_train.config import Config
    from student_train.data.mixture import Mixture
    from student_train.training.build_run import build_run
    from student_train.training.hardware import settle
    from student_train.training.runtime import Runtime
    from student_train.training.state import Handover

    requested = Config(
        shards=(options.shards,),
        student=options.student,
        student_layers=options.student_layers,
        objective=objective,
        batch_tokens=options.batch_tokens,
        micro_tokens=options.micro_tokens,
        held_out=0.0,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
    )
    config = settle(requested, device=world.device).config
    return build_run(config, Mixture(caches=(cache,), shares=None), Handover(segments=[]), Runtime(world=world))


def read_steps(context: RunContext, cache: Any, count: int) -> list[Step]:
    """Return the first steps of an epoch."""
    from student_train.data.loader import Rows, read_step

    rows, plan = Rows([cache]), context.first_leg.plan
    return [read_step(rows, plan, context.batches, step=number) for number in range(min(count, plan.steps_per_epoch))]


def step_function(
    way: str, options: argparse.Namespace, contexts: dict[str, RunContext], device: torch.device
) -> StepFunction:
    """Return the function that takes one step of a way."""
    if way in contexts:
        return product_step(contexts[way])
    return plain_step(contexts["sft"], options, device, with_teacher=way == "live-kd")


def product_step(context: RunContext) -> StepFunction:
    """Return a step of the product."""
    from student_train.training.train_step import UpdateSettings, take_step

    weights = context.objective.weights(context.objective.initial_state())
    update = UpdateSettings(lr=1e-6, clip=1.0, weights=weights)

    def take(step: Step) -> None:
        take_step(
            context.distiller,
            context.optimizer,
            step.batches,
            number=step.number,
            update=update,
            world=context.world,
        )

    return take


def plain_step(
    context: RunContext, options: argparse.Namespace, device: torch.device, *, with_teacher: bool
) -> StepFunction:
    """Return a step of an ordinary loop on a copy of the student."""
    import copy

    import torch
    from torch.nn import functional

    student = copy.deepcopy(context.student.model).to(device).train()
    teacher = load_teacher(options.teacher, device) if with_teacher else None
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, betas=(0.9, 0.95), fused=device.type == "cuda")
    bfloat16 = context.config.dtype == "bfloat16"

    def take(step: Step) -> None:
        for batch in step.batches:
            ids_BT = batch.tokens_BT.to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                logits_BTV = student(input_ids=ids_BT, use_cache=False).logits[:, :-1].float()
                loss = functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
                if teacher is not None:
                    with torch.no_grad():
                        target_BTV = teacher(input_ids=ids_BT, use_cache=False).logits[:, :-1].float().log_softmax(-1)
                    kl = functional.kl_div(
                        logits_BTV.log_softmax(-1).flatten(0, 1),
                        target_BTV.flatten(0, 1),
                        reduction="batchmean",
                        log_target=True,
                    )
                    loss = 0.7 * kl + 0.3 * loss
            (loss / len(step.batches)).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def load_teacher(name: str, device: torch.device) -> Any:
    """Return the teacher, frozen."""
    import torch
    from transformers import AutoModelForCausalLM

    from teacher_dump.model.teachers import resolve

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(resolve(name).folder, dtype=dtype)
    return model.to(device).eval().requires_grad_(False)


@dataclass
class Measured:
    """Figures of one way."""

    seconds: list[float]
    """Seconds of each round."""
    peak_bytes: int
    """Largest allocation of a GPU above its level before the round; 0 on a CPU."""

    def add(self, result: tuple[float, int]) -> None:
        """Add a round."""
        self.seconds.append(result[0])
        self.peak_bytes = max(self.peak_bytes, result[1])


def run_pass(take: StepFunction, steps: list[Step], device: torch.device) -> tuple[float, int]:
    """Return the seconds of the steps, and the peak of allocated bytes above the level before."""
    import torch

    on_gpu = device.type == "cuda"
    base = 0
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
    started = time.perf_counter()
    for step in steps:
        take(step)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() - base if on_gpu else 0


def summary(way: str, measured: dict[str, Measured], against: str, tokens: int) -> dict[str, Any]:
    """Return the figures of one way."""
    found = measured[way]
    line: dict[str, Any] = {
        "way": way,
        "tokens_per_s": round(tokens / statistics.median(found.seconds)),
        "peak_GiB": round(found.peak_bytes / 2**30, 2),
    }
    if against in measured:
        ratios = [base / own for own, base in zip(found.seconds, measured[against].seconds, strict=True)]
        line[f"rate_over_{against}"] = round(statistics.median(ratios), 3)
        line["least_to_most"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return line


def settings(options: argparse.Namespace, torch: Any, device: torch.device, tokens: int) -> dict[str, Any]:
    """Return what every line reports of the run."""
    return {
        "student": options.student,
        "layers": options.student_layers,
        "batch_tokens": options.batch_tokens,
        "tokens": tokens,
        "rounds": options.rounds,
        "device": str(device),
        "provenance": _common.provenance(with_torch=True),
    }


if __name__ == "__main__":
    main()

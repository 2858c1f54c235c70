"""Memory and time of the fused loss beside plain losses and beside a fused cross-entropy.

Runs forward and backward of output projection and loss on random hidden states, with records like those of a real cache
(about ten entries per position). Prints one JSON object per line.

Memory: each way has a process of its own and a small warm-up pass. The figure is the peak above the inputs (hidden
states, projection, targets) and the two gradients, which the model needs anyway. In bfloat16 every way also holds a
copy of the projection in that type; `of_which_copy_MiB` is its size.
Time: all ways run in turn in one process. The figures are medians over the rounds and of each round's ratio to
`--against`. `cpu_seconds` is the CPU time of all threads: compare this one on a busy machine.

    python -m benchmarks.fused_loss memory                                  # 8,192 positions, V 51,200, H 2,560
    python -m benchmarks.fused_loss time --dtype bfloat16 --ways torch-ce fused-ce fused-kd
    python -m benchmarks.fused_loss time --device cuda --dtype bfloat16 --rounds 50 \\
        --ways plain-ce fused-ce fused-kd liger-ce liger-kd

Ways: `plain-ce` is torch's cross_entropy on all logits; `plain-kd` a sparse KL on all log-probabilities; `torch-ce`
torch's fused linear_cross_entropy (2.13 and later) with default options; `fused-ce` and `fused-kd` are
`student_train.losses.fused_linear`; `liger-ce` and `liger-kd` are Liger-Kernel's fused linear cross-entropy and its
fused linear JSD at beta 0 (forward KL), which also projects the hidden states of a teacher (a GPU, liger-kernel).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _common
from shards.runtime import machine

WAYS = ("plain-ce", "plain-kd", "torch-ce", "fused-ce", "fused-kd", "liger-ce", "liger-kd")
DEFAULT_WAYS = WAYS[:5]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = _common.parser(__doc__)
    parser.add_argument("what", choices=("memory", "time"))
    parser.add_argument("--positions", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=51200)
    parser.add_argument("--hidden", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", choices=machine.DTYPES)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--block", type=int, default=0, help="log2 of a block's logits; 0 for the product's choice")
    parser.add_argument("--ways", nargs="+", default=list(DEFAULT_WAYS), choices=WAYS)
    parser.add_argument("--against", default="fused-ce", choices=WAYS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure memory or time and print one JSON object per line."""
    options = parse()
    options.dtype = resolved_dtype(options)
    if options.block:
        from student_train.losses import blockwise

        blockwise.block_elements = lambda device: 2**options.block
    if options.what == "time":
        for line in measure_time(options):
            print(json.dumps(line), flush=True)
    elif options.one:
        print(json.dumps(measure_memory(options)), flush=True)
    else:
        for way in options.ways:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.fused_loss", *sys.argv[1:], "--ways", way, "--one"], check=True
            )


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Return the peak memory of one way, MiB."""
    import torch

    way, device, dtype = options.ways[0], torch.device(options.device), getattr(torch, options.dtype)
    machine.use_threads(torch, options.threads)
    small = random_targets(64, options.vocab).to(device)
    run(make_step(way, small, dtype), *inputs(options, device, positions=64))
    targets = random_targets(options.positions, options.vocab).to(device)
    base = reset_peak(device)
    hidden, weight = inputs(options, device)
    run(make_step(way, targets, dtype), hidden, weight)
    peak = read_peak(device) - base - 2 * 4 * (hidden.numel() + weight.numel())
    copied = weight.numel() * dtype.itemsize if dtype != torch.float32 else 0
    return {
        "way": way,
        "peak_MiB_above_model": round(peak / 2**20, 1),
        "of_which_copy_MiB": round(copied / 2**20, 1),
        **setting(options),
    }


def measure_time(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the times of all ways, one line per way."""
    import torch

    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    machine.use_threads(torch, options.threads)
    targets = random_targets(options.positions, options.vocab).to(device)
    hidden, weight = inputs(options, device)
    small = random_targets(64, options.vocab).to(device)
    few, same = inputs(options, device, positions=64)
    for way in options.ways:
        run(make_step(way, small, dtype), few, same)
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in options.ways}
    for turn in range(options.rounds):
        # Every second round runs in reverse order, so that no way always comes first.
        for way in options.ways if turn % 2 == 0 else reversed(options.ways):
            seconds[way].append(run(make_step(way, targets, dtype), hidden, weight))
    lines = []
    for way, pairs in seconds.items():
        line: dict[str, Any] = {"way": way, "rounds": options.rounds}
        for i, name in enumerate(("seconds", "cpu_seconds")):
            line[name] = round(statistics.median(pair[i] for pair in pairs), 4)
            if options.against in seconds:
                ratios = [a[i] / b[i] for a, b in zip(pairs, seconds[options.against], strict=True)]
                line[f"{name}_over_{options.against}"] = round(statistics.median(ratios), 4)
        lines.append(line | setting(options))
    return lines


def inputs(options: argparse.Namespace, device: Any, positions: int = 0) -> tuple[Any, Any]:
    """Return random hidden states [P, H] and projection weights [V, H], both with gradients."""
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(positions or options.positions, options.hidden, device=device).requires_grad_()
    weight = torch.randn(options.vocab, options.hidden, device=device).mul_(0.02).requires_grad_()
    return hidden, weight


def run(step: Any, hidden: Any, weight: Any) -> tuple[float, float]:
    """Run one forward and backward pass; return wall seconds and CPU seconds."""
    hidden.grad = weight.grad = None
    started, started_cpu = time.perf_counter(), time.process_time()
    step(hidden, weight).backward()
    if hidden.is_cuda:
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started, time.process_time() - started_cpu


def resolved_dtype(options: argparse.Namespace) -> str:
    """Return the type that `--dtype` selects on the device of the run."""
    import torch

    gpu = machine.gpu(torch) if options.device.startswith("cuda") else None
    return machine.choose_dtype(options.dtype, gpu=gpu).dtype


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """Return the sizes and versions that every line reports."""
    import torch

    on_gpu = options.device.startswith("cuda")
    return {
        "positions": options.positions,
        "block": options.block,
        "vocab": options.vocab,
        "hidden": options.hidden,
        "dtype": options.dtype,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "date": _common.today(),
        "machine": machine.describe(torch),
    }


def random_targets(positions: int, vocab: int) -> Any:
    """Return targets with 5 head ids, 5 draws, a label and a tail mass of 0.2 at each position."""
    import torch

    from student_train.losses.targets import Targets

    # Eleven distinct ids at equal steps from a random start. Permutations would allocate memory that hides the peak.
    ids_PK = (torch.randint(vocab, (positions, 1)) + torch.arange(11) * (vocab // 11)) % vocab
    head_PK = torch.zeros(positions, 11, dtype=torch.bool)
    head_PK[:, 1:6] = True
    weight_PK = torch.zeros(positions, 11)
    weight_PK[:, 1:6] = 0.8 / 5
    weight_PK[:, 6:] = 0.2 / 5
    return Targets(
        ids_PK=ids_PK,
        valid_PK=torch.ones_like(head_PK),
        head_PK=head_PK,
        teacher_PK=weight_PK * head_PK,
        weight_PK=weight_PK,
        tail_P=torch.full((positions,), 0.2),
        bucket_P=torch.zeros(positions),
        constant_P=torch.zeros(positions),
        top_P=ids_PK[:, 1],
    )


def make_step(way: str, targets: Any, dtype: Any) -> Any:
    """Return a function from hidden states and projection to the loss of one way."""
    import torch

    from student_train.losses.blockwise import Projection
    from student_train.losses.fused_linear import LossSpec, fused_loss

    count = len(targets)
    index_P = torch.arange(count, device=targets.ids_PK.device)
    if way.startswith("fused"):
        spec = LossSpec(divergence="forward-kl" if way == "fused-kd" else None, ce_weight=0.3)

        def fused_step(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return fused_loss(
                hidden,
                Projection(weight, compute_dtype=dtype),
                index_P=index_P,
                targets=targets,
                spec=spec,
                scale=1.0 / count,
            ).loss

        return fused_step

    if way.startswith("liger"):
        return liger_step(way, targets, dtype)

    if way == "torch-ce":
        options = torch.nn.LinearCrossEntropyOptions()

        def torch_step(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear_cross_entropy(
                hidden.to(dtype), weight.to(dtype), targets.ids_PK[:, 0], options=options
            )

        return torch_step

    def plain_step(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits_PV = (hidden.to(dtype) @ weight.to(dtype).t()).float()
        if way == "plain-ce":
            return torch.nn.functional.cross_entropy(logits_PV, targets.ids_PK[:, 0])
        logp_PK = logits_PV.log_softmax(1).gather(1, targets.ids_PK)
        return -(0.7 * targets.weight_PK * logp_PK).sum() / count - 0.3 * logp_PK[:, 0].mean()

    return plain_step


def liger_step(way: str, targets: Any, dtype: Any) -> Any:
    """Return a function from hidden states and projection to one of Liger-Kernel's losses."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    labels_P = targets.ids_PK[:, 0]
    if way == "liger-ce":
        cross_entropy = LigerFusedLinearCrossEntropyLoss()
        return lambda hidden, weight: cross_entropy(weight.to(dtype), hidden.to(dtype), labels_P)
    divergence = LigerFusedLinearJSDLoss(beta=0.0, weight_hard_loss=0.3, weight_soft_loss=0.7)
    teacher: list[Any] = []

    def step(hidden: torch.Tensor, weight: torch.Tensor) -> Any:
        if not teacher:
            teacher.extend((torch.randn_like(hidden, dtype=dtype), torch.randn_like(weight, dtype=dtype).mul_(0.02)))
        if len(teacher[0]) != len(hidden):
            teacher[0] = torch.randn_like(hidden, dtype=dtype)
        return divergence(hidden.to(dtype), weight.to(dtype), *teacher, labels_P)

    return step


def reset_peak(device: Any) -> int:
    """Reset the peak and return the memory in use, bytes."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def read_peak(device: Any) -> int:
    """Return the peak since `reset_peak`, bytes."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    main()

"""How much memory and time does the fused loss take, against plain losses?

Each way runs in a process of its own: forward and backward of output projection and loss on random hidden states, with
records like a real cache's (about ten entries a position). Memory is the peak above inputs and their gradients, which
the model needs anyway. `cpu_seconds` is the processor time of all threads: the one to compare on a busy machine. Prints
one JSON object a line.

    python benchmarks/fused_loss.py                     # 8,192 positions, V 51,200, H 2,560: minutes on a CPU
    python benchmarks/fused_loss.py --positions 1024 --repeats 3
    python benchmarks/fused_loss.py --device cuda --dtype bfloat16

Ways: `plain-ce` is torch's cross_entropy on whole logits; `plain-kd` a sparse KL on whole log-probabilities; `fused-ce`
and `fused-kd` are `student_train.fused`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

WAYS = ("plain-ce", "plain-kd", "fused-ce", "fused-kd")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=51200)
    parser.add_argument("--hidden", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if options.one:
        print(json.dumps(measure(options)), flush=True)
        return
    for way in options.ways:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", way], check=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    torch.manual_seed(0)
    targets = random_targets(options.positions, options.vocab).to(device)
    base = reset_peak(device)
    hidden = torch.randn(options.positions, options.hidden, device=device).requires_grad_()
    weight = (torch.randn(options.vocab, options.hidden, device=device).mul_(0.02)).requires_grad_()
    step = make_step(options.one, targets, dtype)
    took_s, cpu_s = [], []
    for repeat in range(options.repeats + 1):
        hidden.grad = weight.grad = None
        reset_peak(device)
        started, started_cpu = time.perf_counter(), time.process_time()
        step(hidden, weight).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took, took_cpu = time.perf_counter() - started, time.process_time() - started_cpu
        # Inputs and their gradients are the model's own.
        peak = read_peak(device) - base - 2 * 4 * (hidden.numel() + weight.numel())
        if repeat or options.repeats == 0:
            took_s.append(took)
            cpu_s.append(took_cpu)
    return {
        "way": options.one,
        "seconds": round(min(took_s), 3),
        "cpu_seconds": round(min(cpu_s), 3),
        "peak_MiB_above_model": round(peak / 2**20, 1),
        "positions": options.positions,
        "vocab": options.vocab,
        "hidden": options.hidden,
        "dtype": options.dtype,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.machine(),
    }


def random_targets(positions: int, vocab: int) -> Any:
    """Return targets of 5 head ids, 5 draws and a realised token at each position, a tail of a fifth."""
    import torch

    from student_train.targets import Targets

    # Eleven distinct ids: steps of a random start. (Permutations would leave a heap that hides the peak.)
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
    import torch

    from student_train.fused import LossSpec, fused_loss

    count = len(targets)
    index_P = torch.arange(count, device=targets.ids_PK.device)
    if way.startswith("fused"):
        spec = LossSpec(divergence="forward-kl" if way == "fused-kd" else None, ce_weight=0.3)

        def fused_step(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return fused_loss(
                hidden,
                weight,
                None,
                index_P=index_P,
                targets=targets,
                spec=spec,
                scale=1.0 / count,
                compute_dtype=dtype,
            ).loss

        return fused_step

    def plain_step(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits_PV = (hidden.to(dtype) @ weight.to(dtype).t()).float()
        if way == "plain-ce":
            return torch.nn.functional.cross_entropy(logits_PV, targets.ids_PK[:, 0])
        logp_PK = logits_PV.log_softmax(1).gather(1, targets.ids_PK)
        return -(0.7 * targets.weight_PK * logp_PK).sum() / count - 0.3 * logp_PK[:, 0].mean()

    return plain_step


def reset_peak(device: Any) -> int:
    """Forget the peak so far and return what is in use, bytes."""
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

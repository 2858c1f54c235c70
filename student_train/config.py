"""What was asked for? Every setting of a training run, validated.

The resolved configuration is written beside every output. `identity` is the part that decides the result: a
checkpoint continues only under the same identity. Paths, how often to save and what to show are not in it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from shards.runtime.machine import DTYPES
from student_train.choices import ACROSS, BALANCES, DIVERGENCES, OBJECTIVES, SCHEDULES
from student_train.errors import TrainError

LAYER_CHOICES = ("importance", "even")
MAX_SPECIALIST = 4096
EXPORT_DTYPES = ("float32", "bfloat16")

# These do not change the result: they may differ between a run and its continuation.
_NOT_IDENTITY = frozenset(
    {
        "shards",
        "out",
        "control",
        "save_every",
        "eval_every",
        "keep",
        "tensorboard",
        "wandb",
        "progress",
        "prefetch",
        "device",
        "threads",
        "follow_wait",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of one run. Fields hold what the user sees in `student-train --help`."""

    shards: str = "shards/"
    """Where the cache lies: a folder or a URL that `shards.open` understands."""
    follow: bool = False
    """Train from a cache that is still being written, see `follow.py`; needs `max_steps`."""
    follow_wait: float = 3600.0
    """Seconds to wait for new shards where the run is ahead of the dump."""
    out: str = "ckpt/"
    """Folder that becomes the trained student, with the run's record beside it."""
    student: str = ""
    """Short name, hub id or folder; "" picks Phi-2 for a Code Llama and else the teacher itself."""
    student_layers: int = 0
    """Layers to keep, see `layer_choice`; 0 keeps all, but half of the teacher's own."""
    layer_choice: str = "importance"
    """Which layers stay: `importance` drops those that change the hidden state least, `even` spreads them evenly."""

    objective: str = "kd"
    """`kd` learns from the teacher's records mixed with cross-entropy, `sft` from cross-entropy alone."""
    divergence: str = "forward-kl"
    """How the student's distribution is compared with the teacher's; one of `DIVERGENCES`."""
    ce_weight: float = 0.3
    """Share of cross-entropy in the loss, 0..1. The rest is the divergence."""
    temperature: float = 1.0
    """Softening of both distributions; other than 1 it must be stored in the shards, and needs a bucket."""
    skew: float = 0.1
    """Share of the teacher in the mixture of `bucket-skew-kl`, 0..1."""
    across: str = "alm+cells"
    """What a student with another tokenizer learns beside cross-entropy: alm, one of cells, matched, uld, or both."""
    balance: str = "norms"
    """How the parts of that loss are weighed: by their gradients' `norms`, or `fixed`, `ce_weight` and equal rests."""
    rs_draws: int = 50
    """Ids that `rs-kd` draws at each position."""
    specialist: tuple[int, ...] = ()
    """Ids that a specialist keeps apart, all others in one class; () trains on all."""
    control: bool = False
    """Also train, from the same weights on the same steps, a student with cross-entropy only, in OUT/control."""

    max_steps: int = 0
    """Optimiser steps, over as many passes as they take; 0 means as many as `epochs` hold."""
    epochs: int = 1
    """Passes over the shards, where `max_steps` is 0."""
    batch_tokens: int = 4096
    """Tokens of one optimiser step, over all ranks, on average."""
    micro_tokens: int = 4096
    """Most tokens of one forward pass; a step with more accumulates gradients."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    schedule: str = "cosine"
    """`cosine` falls to a tenth of the peak; `wsd` stays and falls to zero over the last fifth."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from zero, 0..1."""
    weight_decay: float = 0.01
    """AdamW's decay, on matrices only."""
    beta2: float = 0.95
    """AdamW's decay of the second moment."""
    adam_eps: float = 1e-8
    """AdamW's floor under the root of the second moment. A larger one calms parameters whose gradients are tiny."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    seed: int = 0
    """Fixes the order of the data and the weights of a student that starts fresh."""

    held_out: float = 0.05
    """Share of documents that are never trained on, 0..1, by a hash of their content."""
    held_out_tokens: int = 65536
    """Most held-out tokens to evaluate on, in the cache's order."""

    lora_rank: int = 0
    """Rank of adapters that train in place of the model's own weights; 0 trains all weights."""
    eval_every: int = 0
    """Steps between held-out evaluations while training; 0 evaluates before and after only."""
    dtype: str = "auto"
    """Arithmetic of the forward and backward pass: `float32`, `bfloat16`, or `auto`, which `hardware.settle` settles
    before a run starts; weights and optimiser state stay float32."""
    export_dtype: str = "float32"
    """Type of the weights in OUT."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the student's layers with torch.compile; see `compiled.py`."""

    save_every: int = 200
    """Steps between checkpoints; 0 saves only at the end."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    device: str = "auto"
    """`auto` is the GPU if there is one, else the CPU."""
    threads: int = 0
    """CPU threads of torch; 0 is OMP_NUM_THREADS, or the physical cores that affinity and cgroup allow."""
    prefetch: int = 4
    """Steps that the reading thread prepares ahead."""
    tensorboard: bool = True
    """Write OUT/tb if tensorboard is installed."""
    wandb: bool = False
    """Also log to Weights & Biases, under its own settings (WANDB_MODE, WANDB_PROJECT, ...)."""
    progress: bool = True
    """Show progress on the error stream."""

    def __post_init__(self) -> None:
        """Check every field; raise TrainError naming the one that is wrong."""
        _one_of("objective", self.objective, OBJECTIVES)
        _one_of("divergence", self.divergence, DIVERGENCES)
        _one_of("balance", self.balance, BALANCES)
        names = self.across.split("+")
        if not {*names} <= {*ACROSS} or len({*names}) < len(names) or len({*names} - {"alm"}) > 1:
            raise TrainError(
                f"across is {self.across!r}; expected alm, one of {', '.join(ACROSS[1:])}, or alm+ one of those"
            )
        _one_of("layer-choice", self.layer_choice, LAYER_CHOICES)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("export-dtype", self.export_dtype, EXPORT_DTYPES)
        for name in ("ce_weight", "skew", "warmup", "held_out", "beta2"):
            _within(name, getattr(self, name), 0.0, 1.0)
        if self.held_out == 1.0:
            raise TrainError("held-out is 1: found nothing left to train on; expected less than 1")
        for name in ("learning_rate", "temperature", "adam_eps"):
            _within(name, getattr(self, name), 1e-12, 1e3)
        for name in ("weight_decay", "clip"):
            _within(name, getattr(self, name), 0.0, 1e6)
        for name in ("rs_draws", "epochs", "batch_tokens", "micro_tokens", "keep", "prefetch"):
            _at_least(name, getattr(self, name), 1)
        for name in (
            "max_steps",
            "student_layers",
            "held_out_tokens",
            "save_every",
            "threads",
            "seed",
            "lora_rank",
            "eval_every",
        ):
            _at_least(name, getattr(self, name), 0)
        _within("follow_wait", self.follow_wait, 0.0, 1e9)
        if self.follow and not self.max_steps:
            raise TrainError(
                "follow without max-steps: found no end, as the cache still grows; expected --max-steps N, which the "
                "learning rate's schedule needs"
            )
        if self.student_layers == 1:
            raise TrainError("student-layers is 1; expected 0 (all) or at least 2, as the first and the last stay")
        if self.objective == "kd" and self.temperature != 1.0 and not self.divergence.startswith("bucket-"):
            raise TrainError(
                f"temperature {self.temperature} with {self.divergence}: stored draws weigh for temperature 1 only; "
                "use --divergence bucket-forward-kl, or --temperature 1"
            )

        if len(self.specialist) > MAX_SPECIALIST:
            raise TrainError(f"specialist has {len(self.specialist)} ids; expected at most {MAX_SPECIALIST}")
        if len(set(self.specialist)) != len(self.specialist) or min(self.specialist, default=0) < 0:
            raise TrainError("specialist has repeated or negative ids; expected each id once")
        if self.specialist and self.objective == "kd" and self.divergence != "forward-kl":
            raise TrainError(f"specialist with {self.divergence}: draws fit a linear loss; use --divergence forward-kl")

    @property
    def parts_across(self) -> tuple[str, ...]:
        """Parts of the loss of a student with another tokenizer."""
        return ("ce",) if self.objective == "sft" else ("ce", *self.across.split("+"))

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON can hold them."""
        return {name: value for name, value in self.to_dict().items() if name not in _NOT_IDENTITY}

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, as JSON can hold them."""
        return {**dataclasses.asdict(self), "specialist": list(self.specialist)}


def from_dict(settings: dict[str, Any]) -> Config:
    """Return the configuration that `to_dict` wrote. Raises: TrainError on a setting that is not known."""
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise TrainError(
            f"found unknown settings {', '.join(unknown)}; expected those of student-train --help; "
            "use the version of teacherless that wrote them"
        )
    # Records that are older than the setting are of runs that spread their layers evenly.
    settings = {"layer_choice": "even", **settings}
    return Config(**{**settings, "specialist": tuple(settings.get("specialist", ()))})


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise TrainError(f"{_flag(name)} is {value!r}; expected one of {', '.join(allowed)}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise TrainError(f"{_flag(name)} is {value}; expected a number from {low:g} to {high:g}")


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise TrainError(f"{_flag(name)} is {value}; expected at least {low}")

"""Settings of a training run, validated once.

The resolved configuration is written beside every output. `identity` is the part that decides the result: a checkpoint
resumes only under the same identity. Every field with a help text is also a command-line option.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from shards.runtime.machine import DTYPES
from student_train.choices import (
    ACROSS,
    BALANCES,
    DIVERGENCES,
    EXPORT_DTYPES,
    LAYER_CHOICES,
    OBJECTIVES,
    QUANTIZATIONS,
    SCHEDULES,
    TEMPLATES,
)
from student_train.errors import TrainError
from student_train.weighted_shards import ShardSource, parse_sources

MAX_SEED = 2**44
"""Largest seed. torch takes 64 bits, and a step's own seed is the run's times 1,000,003 plus the step."""
MAX_SPECIALIST = 4096
"""Most ids of a specialist."""
_NOT_IDENTITY = frozenset(
    {
        *("shards", "out", "control", "save_every", "eval_every", "keep", "tensorboard", "wandb", "progress"),
        *("prefetch", "device", "threads", "follow_wait"),
    }
)
"""Settings that do not change the result. They may differ between a run and its continuation."""
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("ce_weight", "skew", "warmup", "held_out", "beta2"), (0.0, 1.0)),
    **dict.fromkeys(("temperature", "adam_eps"), (1e-12, 1e3)),
    "learning_rate": (0.0, 1e3),
    **dict.fromkeys(("weight_decay", "clip", "relations_weight"), (0.0, 1e6)),
    "follow_wait": (0.0, 1e9),
}
"""Least and greatest value of numbers."""
_AT_LEAST_0 = (
    *("max_steps", "student_layers", "held_out_tokens", "save_every", "threads", "seed", "lora_rank", "eval_every"),
)
_AT_LEAST_1 = ("rs_draws", "epochs", "batch_tokens", "micro_tokens", "keep", "prefetch")


def _setting(default: Any, help_text: str, *, metavar: str = "", choices: tuple[str, ...] = ()) -> Any:
    """Return a field of `Config` that is a command-line option.

    Args:
        default: Default of the setting.
        help_text: Text for `student-train --help`.
        metavar: Name of the value in the help; "" for that of the type.
        choices: Values that are accepted; () for all.
    """
    return field(default=default, metadata={"help": help_text, "metavar": metavar or None, "choices": choices})


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of one run."""

    shards: tuple[str, ...] = _setting(
        ("shards/",),
        "Folder or URL of a cache that teacher-dump wrote. Give it several times to train on several caches: each has "
        "its WEIGHT as share of the tokens that carry loss, or without weights each row is read once an epoch.",
        metavar="DIR[=WEIGHT]",
    )
    follow: bool = _setting(
        False, "Train from a cache that teacher-dump is still writing, the first of --shards; needs --max-steps."
    )
    follow_wait: float = _setting(3600.0, "Seconds to wait for new shards where training is ahead of the dump.")
    out: str = _setting(
        "ckpt/", "Folder that becomes the student, with the run's record beside the weights.", metavar="DIR"
    )
    student: str = _setting(
        "",
        "teacher, phi-2, tinyllama, smollm2-135m, a hub id, or a folder. Default: phi-2 for a Code Llama, else the "
        "teacher itself.",
        metavar="NAME",
    )
    student_layers: int = _setting(0, "Layers to keep; 0 keeps all, or half where the student is the teacher itself.")
    layer_choice: str = _setting(
        "kl",
        "Which layers stay: kl drops those without which the predictions change least, importance those that change "
        "the hidden state least; even keeps evenly spaced ones.",
        choices=LAYER_CHOICES,
    )

    objective: str = _setting(
        "kd", "kd: the teacher's records mixed with cross-entropy; sft: cross-entropy alone.", choices=OBJECTIVES
    )
    divergence: str = _setting(
        "forward-kl",
        "Divergence between teacher and student. rs-kd (noisier) and top-k (biased) are for comparison.",
        choices=DIVERGENCES,
    )
    ce_weight: float = _setting(0.3, "Share of cross-entropy in the loss, 0 to 1.")
    temperature: float = _setting(
        1.0,
        "Softens both distributions. A value other than 1 must be stored in the shards, and needs a bucket divergence.",
    )
    skew: float = _setting(0.1, "Share of the teacher in the mixture of bucket-skew-kl.")
    across: str = _setting(
        "alm+cells",
        "Loss of a student with another tokenizer, beside cross-entropy: alm, cells, matched, uld, or alm+ one of "
        "them.",
        metavar="LOSS",
    )
    balance: str = _setting(
        "norms", "Weights of the parts of that loss: from gradient norms, or fixed shares.", choices=BALANCES
    )
    template: str = _setting(
        "stored",
        "Chat template of the context of responses: stored, the teacher's; own, the student's. A student with another "
        "tokenizer always has its own.",
        choices=TEMPLATES,
    )
    relations_weight: float = _setting(
        0.0, "Weight of the relations of one layer, added to the loss; needs a cache of teacher-dump --relations."
    )
    relations_layer: int = _setting(-1, "Layer of the student for --relations-weight, from 0; -1 is the last.")
    rs_draws: int = _setting(50, "Ids that rs-kd draws at each position.")
    specialist: tuple[int, ...] = ()
    """Ids that a specialist keeps apart, with one class for all others; () trains on all."""
    control: bool = _setting(
        False, "Also train, from the same weights on the same steps, with cross-entropy only: OUT/control."
    )

    max_steps: int = _setting(0, "Optimiser steps; 0: as many as --epochs hold.")
    epochs: int = _setting(1, "Passes over the shards, where --max-steps is 0.")
    batch_tokens: int = _setting(4096, "Tokens of an optimiser step over all ranks, on average.")
    micro_tokens: int = _setting(4096, "Most tokens of one forward pass; a step with more accumulates gradients.")
    learning_rate: float = _setting(3e-4, "Peak learning rate of AdamW; 0 leaves the weights as they are.")
    schedule: str = _setting(
        "cosine",
        "cosine: falls to a tenth of the peak; wsd: stays, then falls to zero over the last fifth.",
        choices=SCHEDULES,
    )
    warmup: float = _setting(0.05, "Share of the steps over which the learning rate rises.")
    weight_decay: float = _setting(0.01, "Weight decay of AdamW, on matrices only.")
    beta2: float = _setting(0.95, "Decay of AdamW's second moment.")
    adam_eps: float = _setting(1e-8, "Epsilon of AdamW; a larger one damps parameters with tiny gradients.")
    clip: float = _setting(1.0, "Largest norm of the gradient; 0 does not clip.")
    seed: int = _setting(0, "Seed of the data's order and of weights that start fresh.")

    held_out: float = _setting(0.05, "Share of documents never trained on, chosen by a hash of their content.")
    held_out_tokens: int = _setting(65536, "Most held-out tokens to evaluate on.")

    lora_rank: int = _setting(0, "Rank of low-rank adapters that train in place of the weights; 0 trains all weights.")
    eval_every: int = _setting(0, "Steps between held-out evaluations while training; 0: before and after only.")
    dtype: str = _setting(
        "auto",
        "Arithmetic; weights and optimiser stay float32. auto: bfloat16 where GPU or processor has it, else float32.",
        choices=DTYPES,
    )
    export_dtype: str = _setting("float32", "Type of the weights in OUT.", choices=EXPORT_DTYPES)
    quantize: str = _setting(
        "",
        "Round the weights while training as int8 or int4 would, and write a quantised copy to OUT/int8 or OUT/int4.",
        metavar="TYPE",
        choices=("", *QUANTIZATIONS),
    )
    gradient_checkpointing: bool = _setting(False, "Recompute activations: less memory, a third more time.")
    compile: bool = _setting(False, "Compile the student's layers with torch.compile.")

    save_every: int = _setting(200, "Steps between checkpoints; 0: only at the end.")
    keep: int = _setting(2, "Number of newest checkpoints to keep.")
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int = _setting(0, "CPU threads; 0: OMP_NUM_THREADS, or the physical cores that affinity and cgroup allow.")
    prefetch: int = _setting(4, "Steps that the reading thread prepares ahead.")
    tensorboard: bool = _setting(True, "Write OUT/tb if tensorboard is installed.")
    wandb: bool = _setting(
        False, "Log to Weights & Biases, too; its own variables (WANDB_MODE, WANDB_PROJECT, ...) apply."
    )
    progress: bool = _setting(True, "Show progress on the error stream.")

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TrainError: A field is wrong; the message names it.
        """
        for item in dataclasses.fields(self):
            if choices := item.metadata.get("choices"):
                _require_one_of(item.name, getattr(self, item.name), choices)
        self._require_known_losses()
        sources = parse_sources(self.shards)
        if self.follow and len(sources) > 1 and sources[0].weight is None:
            raise TrainError(
                f"follow with {len(sources)} caches: found no weights, expected one for each cache, as the size of one "
                f"that is still written is not known; write {sources[0].path}=WEIGHT"
            )
        for name, (low, high) in _RANGES.items():
            _require_within(name, getattr(self, name), low, high)
        for names, least in ((_AT_LEAST_1, 1), (_AT_LEAST_0, 0)):
            for name in names:
                _require_at_least(name, getattr(self, name), least)
        self._require_torch_accepts()
        self._require_an_end()
        self._require_fitting_temperature()
        self._require_valid_specialist()
        self._require_usable_relations()
        if self.quantize and self.lora_rank:
            raise TrainError("quantize with lora-rank: adapters leave the weights as they are; use one of them")

    def _require_known_losses(self) -> None:
        names = self.across.split("+")
        is_known = {*names} <= {*ACROSS} and len({*names}) == len(names)
        if not is_known or len({*names} - {"alm"}) > 1:
            raise TrainError(
                f"across is {self.across!r}; expected alm, one of {', '.join(ACROSS[1:])}, or alm+ one of those"
            )

    def _require_torch_accepts(self) -> None:
        if self.seed > MAX_SEED:
            raise TrainError(f"seed is {self.seed}; expected at most {MAX_SEED}, as the seeds of steps have 64 bits")
        if self.beta2 == 1.0:
            raise TrainError("beta2 is 1.0; expected at least 0 and less than 1, as AdamW needs it")

    def _require_an_end(self) -> None:
        if self.held_out == 1.0:
            raise TrainError("held-out is 1: found nothing left to train on; expected less than 1")
        if self.follow and not self.max_steps:
            raise TrainError(
                "follow without max-steps: found no end, as the cache still grows; expected --max-steps N, which the "
                "learning rate's schedule needs"
            )
        if self.student_layers == 1:
            raise TrainError("student-layers is 1; expected 0 (all) or at least 2, as the first and the last stay")

    def _require_fitting_temperature(self) -> None:
        if self.objective == "kd" and self.temperature != 1.0 and not self.divergence.startswith("bucket-"):
            raise TrainError(
                f"temperature {self.temperature} with {self.divergence}: stored draws have weights for temperature 1 "
                "only; use --divergence bucket-forward-kl, or --temperature 1"
            )

    def _require_valid_specialist(self) -> None:
        if len(self.specialist) > MAX_SPECIALIST:
            raise TrainError(f"specialist has {len(self.specialist)} ids; expected at most {MAX_SPECIALIST}")
        if len(set(self.specialist)) != len(self.specialist) or min(self.specialist, default=0) < 0:
            raise TrainError("specialist has repeated or negative ids; expected each id once")
        if self.specialist and self.objective == "kd" and self.divergence != "forward-kl":
            raise TrainError(f"specialist with {self.divergence}: draws fit a linear loss; use --divergence forward-kl")

    def _require_usable_relations(self) -> None:
        if self.relations_weight and self.objective == "sft":
            raise TrainError("relations-weight with objective sft: that is cross-entropy alone; use --objective kd")
        if self.relations_weight and self.compile:
            raise TrainError(
                "relations-weight with compile: compiled layers do not give their vectors; use one of them"
            )

    @property
    def sources(self) -> tuple[ShardSource, ...]:
        """The caches, with their weights."""
        return parse_sources(self.shards)

    @property
    def shard_paths(self) -> str:
        """Folders or URLs of the caches, for messages."""
        return ", ".join(source.path for source in self.sources)

    @property
    def parts_across(self) -> tuple[str, ...]:
        """Parts of the loss of a student with another tokenizer."""
        return ("ce",) if self.objective == "sft" else ("ce", *self.across.split("+"))

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON can hold them."""
        return {name: value for name, value in self.to_dict().items() if name not in _NOT_IDENTITY}

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, as JSON can hold them; a single cache as text, which records of one cache always had."""
        shards = self.shards[0] if len(self.shards) == 1 else list(self.shards)
        return {**dataclasses.asdict(self), "shards": shards, "specialist": list(self.specialist)}


def from_dict(settings: dict[str, Any]) -> Config:
    """Return the configuration that `to_dict` wrote.

    Records older than `layer_choice` are of runs that kept evenly spaced layers.

    Raises:
        TrainError: A setting is unknown or wrong.
    """
    known = {item.name for item in dataclasses.fields(Config)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise TrainError(
            f"found unknown settings {', '.join(unknown)}; expected those of student-train --help; "
            "use the version of teacherless that wrote them"
        )
    settings = {"layer_choice": "even", **settings}
    shards = settings.get("shards", ("shards/",))
    shards = (shards,) if isinstance(shards, str) else tuple(shards)
    return Config(**{**settings, "shards": shards, "specialist": tuple(settings.get("specialist", ()))})


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise TrainError(f"{_flag(name)} is {value!r}; expected one of {', '.join(allowed)}")


def _require_within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise TrainError(f"{_flag(name)} is {value}; expected a number from {low:g} to {high:g}")


def _require_at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise TrainError(f"{_flag(name)} is {value}; expected at least {low}")

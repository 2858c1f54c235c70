"""Arguments of the public commands that experiments run: writing and recording responses, training, scoring.

The order of the arguments is a part of the marks of finished stages (`benchmarks/_stages.py`). Keep it.
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLING = ("--temperature", "0.8", "--top-p", "0.95")
"""Sampling of several answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBudget:
    """What every trained student of an experiment has in common."""

    steps: int
    batch_tokens: int
    micro_tokens: int
    learning_rate: float


def writing(
    *, model: str, prompts: str, out: str, samples: int, new_tokens: int, engine: str = "auto", writer: str = ""
) -> tuple[str, ...]:
    """Return the arguments of teacher-dump that write responses, greedy if there is one to each prompt.

    Args:
        model: The teacher.
        prompts: Value of --prompts.
        out: Folder.
        samples: Responses to each prompt.
        new_tokens: Most tokens of a response.
        engine: Value of --engine.
        writer: Another model that writes; "" for the teacher.
    """
    sampling = SAMPLING if samples > 1 else ("--temperature", "0")
    other = ("--writer", writer) if writer else ()
    size = ("--samples", str(samples), "--max-new-tokens", str(new_tokens), "--engine", engine)
    return ("--model", model, "--prompts", prompts, "--out", out, *other, *sampling, *size)


def recording(*, model: str, data: str, out: str, engine: str = "auto", verdicts: str = "") -> tuple[str, ...]:
    """Return the arguments of teacher-dump that record responses; with `verdicts`, those that passed their tests."""
    passed = ("--verdicts", verdicts) if verdicts else ()
    return ("--model", model, "--engine", engine, "--data", data, *passed, "--out", out)


def judging(*, responses: str, task: str, data_dir: str, result: str) -> tuple[str, ...]:
    """Return the arguments of evalkit that judge responses."""
    return (
        *("score", "--samples", responses, "--tasks", task, "--no-html"),
        *(("--data-dir", data_dir) if data_dir else ()),
        *("--json", result),
    )


def training(*, shards: str, student: str, out: str, seed: int, budget: TrainingBudget) -> tuple[str, ...]:
    """Return the arguments of student-train; objective and details follow."""
    return (
        *("--shards", shards, "--student", student, "--out", out),
        *("--max-steps", str(budget.steps), "--seed", str(seed), "--learning-rate", f"{budget.learning_rate:g}"),
        *("--batch-tokens", str(budget.batch_tokens), "--micro-tokens", str(budget.micro_tokens)),
        *("--held-out", "0.1", "--no-tensorboard", "--save-every", "10", "--keep", "1"),
    )


def comparing(*, model: str, shards: str, result: str) -> tuple[str, ...]:
    """Return the arguments of student-train that compare a model with the teacher on held-out rows of a cache."""
    return ("--evaluate", model, "--shards", shards, "--held-out", "0.1", "--json", result)


def scoring(
    *, model: str, task: str, protocol: str, samples: int, new_tokens: int, data_dir: str, result: str, limit: int = 0
) -> tuple[str, ...]:
    """Return the arguments of evalkit that let a model answer the problems of a benchmark and score its answers.

    Args:
        model: Checkpoint.
        task: Benchmark.
        protocol: Name of the protocol.
        samples: Answers to each problem; one is greedy.
        new_tokens: Most tokens of an answer.
        data_dir: Folder of benchmark files; "" to download them.
        result: Value of --json.
        limit: Only so many problems; 0 for all.
    """
    return (
        *("score", model, "--tasks", task, "--protocol", protocol, "--no-html"),
        *("--n", str(samples), "--temperature", "0" if samples == 1 else "0.8", "--top-p", "0.95"),
        *("--max-new-tokens", str(new_tokens)),
        *(("--data-dir", data_dir) if data_dir else ()),
        *("--json", result),
        *(("--limit", str(limit)) if limit else ()),
    )

"""Write the files of a small, synthetic training run in the format of student-train."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any


def estimate(mean: float, half: float) -> dict[str, float]:
    """Return an estimate with the interval mean +- half."""
    return {"mean": mean, "low": mean - half, "high": mean + half}


def write_run(folder: Path, *, objective: str = "kd", kl: float = 0.8, seed: int = 0, **changes: Any) -> Path:
    """Write run.json, metrics.jsonl and held_out.jsonl of a run whose held-out KL is about `kl`."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    record: dict[str, Any] = {
        "format": 1,
        "objective": objective,
        "config": {"max_steps": 200},
        "manifest_sha256": "ab" * 32,
        "shards": {
            "tokens": 100_000,
            "rows": 200,
            "bytes_on_disk": 3_120_000,
            "bytes_per_token": 31.2,
            "teacher": {"name": "SmolLM2-135M-Instruct", "revision": "0.1.2"},
        },
        "student": {"source": "shallow", "layers": 10, "parameters": 63_700_000},
        "versions": {"torch": "2.13.0"},
        "command": ["student-train", "--shards", "demo/shards/"],
        "train": {"steps": 200, "tokens": 90_000, "seconds": 120.5, "tokens_per_s": 747.0},
        "held_out": {
            "rows": 20,
            "tokens": 10_000,
            "bytes": 35_000,
            "before": {
                "kl": estimate(2.9, 0.2),
                "bits_per_byte": estimate(1.9, 0.1),
                "top1_agreement": estimate(0.3, 0.02),
            },
            "after": {
                "kl": estimate(kl, 0.05),
                "bits_per_byte": estimate(1.1, 0.05),
                "top1_agreement": estimate(0.6, 0.02),
            },
        },
    }
    (folder / "run.json").write_text(json.dumps(record | changes))
    with (folder / "metrics.jsonl").open("w") as stream:
        for step in range(1, 201):
            decay = math.exp(-step / 60)
            row = {"step": step, "tokens": step * 450, "lr": 1e-3, "tokens_per_s": 747.0}
            row["ce_loss"] = 2.2 + 3 * decay + chance.gauss(0, 0.12)
            row["loss"] = row["ce_loss"]
            if objective == "kd":
                row["kd_loss"] = kl + 2 * decay + chance.gauss(0, 0.08)
                row["loss"] = 0.5 * row["ce_loss"] + 0.5 * row["kd_loss"]
            stream.write(json.dumps(row) + "\n")
    hardness = random.Random(1)
    with (folder / "held_out.jsonl").open("w") as stream:
        for index in range(20):
            scale = hardness.uniform(0.7, 1.3)
            row = {"document": f"doc{index // 2}", "window": index % 2, "tokens": 500, "bytes": 1750}
            row |= {"kl_sum": 500 * kl * scale + chance.gauss(0, 4), "nll_sum": 1300 * scale}
            stream.write(json.dumps(row | {"kl_sum_before": 1450.0, "nll_sum_before": 2300.0}) + "\n")
    return folder


def write_cross_tokenizer_run(folder: Path, *, kl: float = 0.8, seed: int = 0, **changes: Any) -> Path:
    """Write a run of a student with another tokenizer: KL of chunks and cells in place of KL of tokens."""

    def summary(scale: float) -> dict[str, dict[str, float]]:
        return {
            "chunk_kl": estimate(scale, 0.05),
            "cell_kl": estimate(0.5 * scale, 0.02),
            "bits_per_byte": estimate(1.1 * scale, 0.05),
            "top1_agreement": estimate(0.6, 0.02),
            "calibration_error": estimate(0.08, 0.01),
        }

    held_out = {"rows": 20, "tokens": 9_000, "bytes": 35_000, "before": summary(2.0), "after": summary(kl)}
    write_run(folder, kl=kl, seed=seed, held_out=held_out, **changes)
    chance = random.Random(seed)
    lines = []
    for index in range(20):
        row = {"document": f"doc{index // 2}", "window": index % 2, "tokens": 450, "bytes": 1750}
        row |= {"chunk_kl_sum": 400 * kl + chance.gauss(0, 4), "chunks": 400}
        row |= {"cell_kl_sum": 200 * kl, "boundaries": 400, "nll_sum": 1300.0 * kl, "top1_sum": 240}
        lines.append(json.dumps(row) + "\n")
    (folder / "held_out.jsonl").write_text("".join(lines))
    return folder


def write_score(path: Path, checkpoint: Path, **passed: dict[str, list[list[bool]]]) -> Path:
    """Write a result of `evalkit score`.

    Args:
        path: The JSON file.
        checkpoint: The checkpoint that it names.
        **passed: For each benchmark, per problem, whether each sample passed.
    """
    scores, data, tasks = {}, {}, {}
    for name, problems in passed.items():
        prefix = "Mbpp/" if name.startswith("mbpp") else "HumanEval/"
        data[name] = {"sha256": "a" * 64, "id_prefix": prefix}
        metrics = {}
        for k in (1, 2):
            if min(map(len, problems)) >= k:
                share = sum(any(marks[:k]) for marks in problems) / len(problems)
                metrics[f"pass@{k}"] = estimate(share, 0.1)
        solved = sum(map(any, problems))
        means = {metric: value["mean"] for metric, value in metrics.items()}
        scores[name] = {**means, "interval": metrics, "problems": len(problems), "solved": solved}
        tasks |= {
            f"{prefix}{number}": [{"passed": mark} for mark in marks] for number, marks in enumerate(problems, 11)
        }
    result = {"checkpoint": {"source": str(checkpoint)}, "limit": None, "scores": scores, "data": data, "tasks": tasks}
    path.write_text(json.dumps(result))
    return path

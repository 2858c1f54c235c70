"""What does a finished training run look like? Writes a small, made-up one in student-train's form."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any


def estimate(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def write_run(folder: Path, *, objective: str = "kd", kl: float = 0.8, seed: int = 0, **changes: Any) -> Path:
    """Write run.json, metrics.jsonl and held_out.jsonl of a made-up run whose held-out KL is about `kl`."""
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

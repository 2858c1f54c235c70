"""The KL that an evaluation from records finds between a teacher and itself, beside caches of the top K probabilities.

    python -m benchmarks.evaluation_floor                                              # SmolLM2-135M
    python -m benchmarks.evaluation_floor --model FOLDER --title "Qwen2.5-Coder-0.5B-Instruct"

Writes a float32 cache of the teacher, and evaluates the teacher on it with `student-train --evaluate`. On the first
positions it also computes the whole distribution, keeps its K largest probabilities, spreads the rest evenly over the
other ids, and takes KL(distribution, kept): what a cache of K log-probabilities loses, at 6 bytes for each (an id of 4
bytes and a half float). The table replaces the section of docs/comparing_models.md between its markers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import shards
from benchmarks import _common
from shards.runtime.machine import describe

BEGIN, END = "<!-- floor: begin -->", "<!-- floor: end -->"
BYTES_PER_SLOT = 6


def main() -> None:
    """Measure and write the table."""
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="short name, hub id or folder of the teacher")
    parser.add_argument("--title", default="SmolLM2-135M", help="its name in the table")
    parser.add_argument("--tokens", type=int, default=20000, help="tokens of the cache")
    parser.add_argument("--exact-tokens", type=int, default=3000, help="tokens with whole distributions")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 512, 4096, 32768])
    parser.add_argument("--page", type=Path, default=Path("docs/comparing_models.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache, result = str(Path(folder, "shards")), str(Path(folder, "e.json"))
        dump = (
            "--model",
            options.model,
            "--data",
            "stdlib",
            "--out",
            cache,
            "--engine",
            "transformers",
            "--dtype",
            "float32",
        )
        _run("teacher-dump", *dump, "--max-tokens", str(options.tokens), "--window-tokens", "512")
        evaluate = ("--evaluate", "teacher", "--shards", cache, "--evaluate-on", "all", "--dtype", "float32")
        _run("student-train", *evaluate, "--json", result)
        record = json.loads(Path(result).read_text())
        losses = _top_k_losses(cache, options.sizes, at_least=options.exact_tokens)
    _common.replace_section(options.page, _table(options.title, record, losses), begin=BEGIN, end=END)


def _run(script: str, *arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name(script)), *arguments], check=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopKLosses:
    """Mean loss of keeping K probabilities, in nats per token."""

    positions: int
    vocab_size: int
    by_size: dict[int, float]


def _top_k_losses(cache: str, sizes: list[int], *, at_least: int) -> TopKLosses:
    """Return the mean losses over the first rows that have so many tokens together."""
    sums, positions, vocab_size = dict.fromkeys(sizes, 0.0), 0, 0
    for probs_PV in _distributions(cache):
        largest_PV = -np.sort(-probs_PV, axis=-1)
        positions, vocab_size = positions + len(probs_PV), probs_PV.shape[1]
        for size in sizes:
            sums[size] += float(_loss_of_rest(largest_PV[:, size:]).sum())
        if positions >= at_least:
            break
    means = {size: total / positions for size, total in sums.items()}
    return TopKLosses(positions=positions, vocab_size=vocab_size, by_size=means)


def _loss_of_rest(rest_PR: np.ndarray) -> np.ndarray:
    """Return KL of the whole distribution to one whose remaining ids share their mass evenly: (P,), nats."""
    mean_P1 = rest_PR.mean(axis=-1, keepdims=True)
    logs_PR = np.log(np.maximum(rest_PR, 1e-300)) - np.log(np.maximum(mean_P1, 1e-300))
    return np.asarray((rest_PR * logs_PR).sum(axis=-1))


def _distributions(cache: str) -> Iterator[np.ndarray]:
    """Yield the teacher's probabilities at the positions of each row: (P, V), float64."""
    import torch
    from transformers import AutoModelForCausalLM

    from student_train.model.sources import find_student

    opened = shards.open(cache)
    folder, _ = find_student("teacher", opened.manifest.teacher)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for i in range(len(opened)):
        chunk = opened[i]
        for r in range(len(chunk.rows)):
            ids = torch.tensor(chunk.row(r).tokens[:-1].astype(np.int64))[None]
            with torch.inference_mode():
                yield model(ids).logits[0].double().softmax(-1).numpy()


def _table(title: str, record: dict[str, Any], losses: TopKLosses) -> str:
    import torch

    kl, own_bytes = record["models"][0]["measures"]["kl"], record["shards"]["bytes_per_token"]
    rows = [
        (f"the {size:,} largest, the rest spread evenly", f"{BYTES_PER_SLOT * size:,}", f"{loss:.5f}")
        for size, loss in losses.by_size.items()
    ]
    interval = f"{kl['mean']:+.5f} [{kl['low']:+.5f}, {kl['high']:+.5f}]"
    rows.append(("records of this project", f"{own_bytes:.0f}", interval))
    table = _common.markdown_table(
        ("what is stored of each distribution", "bytes per token", "KL, nats per token"), rows
    )
    return (
        f"`python -m benchmarks.evaluation_floor`, {_common.today()}: {title}, {losses.vocab_size:,} ids, "
        f"{record['on']['tokens']:,} tokens of the standard library ({losses.positions:,} for the K largest), float32, "
        f"{describe(torch)}.\n\n{table}"
    )


if __name__ == "__main__":
    main()

"""Losses across tokenizers compared: the same student, steps and data, one run per method and seed.

Every run is a product run (`student_train.training.trainer.run`). A stopped run resumes, and a finished run is not
repeated. Methods: cross-entropy only (`ce`), `alm`, `cells`, `alm+cells`, `matched`, `uld`, and `alm+cells fixed` with
fixed weights in place of gradient norms. The seed fixes the order of the data and dropout; the student always starts
from the same weights. Held-out documents are never trained on. Differences to `ce` are paired: means over seeds per
document, 95 % percentile bootstrap over documents.

    teacher-dump --model GEMMA_FOLDER --data stdlib --engine transformers --dtype bfloat16 --max-tokens 330000 \
        --max-documents 400 --window-tokens 512 --task-tokens 20000 --chunk-tokens 8192 --out gemma-shards/
    python -m benchmarks.cross_tokenizer --shards gemma-shards/ --student SMOLLM2_FOLDER --runs runs/ \
        --write docs/results/cross_tokenizer

GEMMA_FOLDER is Gemma 3 270M as a transformers folder: `--convert GGUF --to FOLDER` makes one from a GGUF file. On a
machine without a GPU, `--small SMOLLM2_FOLDER --to FOLDER` makes a student of 7 M parameters, and --layers keeps some
layers of a large student. Without --write the script only trains; with --report it only writes the page.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np

from benchmarks import _common
from benchmarks.cross_tokenizer_page import MEASURES, page, picture
from shards.runtime.machine import DTYPES

METHODS: dict[str, dict[str, Any]] = {
    "ce": {"objective": "sft"},
    "alm": {"across": "alm"},
    "cells": {"across": "cells"},
    "alm+cells": {"across": "alm+cells"},
    "matched": {"across": "matched"},
    "uld": {"across": "uld"},
    "alm+cells fixed": {"across": "alm+cells", "balance": "fixed"},
}


def main() -> None:
    """Train what is missing and report all runs."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards")
    parser.add_argument("--student")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="0: one epoch")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--adam-eps", type=float, default=1e-8)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--held-out", type=float, default=0.12)
    parser.add_argument("--held-out-tokens", type=int, default=40_000)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/"))
    parser.add_argument(
        "--keep-weights", action="store_true", help="keep the models; otherwise they are deleted after scoring"
    )
    parser.add_argument("--report", action="store_true", help="train nothing; report the finished runs")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--title", default="Gemma 3 270M into SmolLM2's tokenizer", help="title of the page")
    parser.add_argument("--convert", type=Path, metavar="GGUF")
    parser.add_argument("--small", type=Path, metavar="SMOLLM2_FOLDER")
    parser.add_argument("--to", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.convert:
        convert(options.convert, options.to)
        return
    if options.small:
        small(options.small, options.to)
        return
    methods, seeds = options.methods.split(","), [int(seed) for seed in options.seeds.split(",")]
    if not options.report:
        # Seed by seed, so that all methods have the same seeds after an early stop.
        for seed in seeds:
            for method in methods:
                run(method, seed, options)
    results = [found for seed in seeds for method in methods if (found := read(options.runs, method, seed))]
    summary = {"title": options.title} | summarise(results)
    if options.shards and results:
        summary["teacher's bits per byte"] = teacher_bits(options.shards, results[0].rows)
    print(json.dumps(summary, indent=1))
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
        options.write.with_suffix(".md").write_text(page(summary, options.write.name))
        picture(summary, options.write.with_suffix(".png"))


def run_folder(runs: Path, method: str, seed: int) -> Path:
    """Return the output folder of one run."""
    return runs / f"{method.replace('+', '-').replace(' ', '-')}-seed{seed}"


def run(method: str, seed: int, options: argparse.Namespace) -> None:
    """Train one student unless its run is finished; keep its record and its held-out rows."""
    from student_train.config import Config
    from student_train.training.trainer import run as train

    out = run_folder(options.runs, method, seed)
    if (out / "run.json").exists():
        return
    train(
        Config(
            shards=(options.shards,),
            out=str(out),
            student=options.student,
            student_layers=options.layers,
            max_steps=options.steps,
            batch_tokens=options.batch_tokens,
            micro_tokens=options.batch_tokens,
            learning_rate=options.learning_rate,
            adam_eps=options.adam_eps,
            dtype=options.dtype,
            held_out=options.held_out,
            held_out_tokens=options.held_out_tokens,
            seed=seed,
            save_every=20,
            keep=1,
            threads=options.threads,
            tensorboard=False,
            progress=False,
            **METHODS[method],
        ),
        command=sys.argv,
    )
    if not options.keep_weights:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        (out / "model.safetensors").unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The record and the held-out rows of a finished run."""

    method: str
    seed: int
    record: dict[str, Any]
    rows: list[dict[str, Any]]


def read(runs: Path, method: str, seed: int) -> Result | None:
    """Return a finished run, or None."""
    out = run_folder(runs, method, seed)
    if not (out / "run.json").exists():
        return None
    rows = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    return Result(method=method, seed=seed, record=json.loads((out / "run.json").read_text()), rows=rows)


def teacher_bits(url: str, held_out: list[dict[str, Any]]) -> float:
    """Return the bits per byte of the teacher on the held-out rows, from its stored log-probabilities."""
    import shards

    scored = {(row["document"], row["window"]) for row in held_out}
    cache = shards.open(url)
    nats, size = 0.0, 0
    for i in range(len(cache)):
        chunk = cache[i]
        for r, row in enumerate(chunk.rows):
            if (row.document, row.window) in scored:
                nats -= float(chunk.row(r).label_logp.astype(np.float64).sum())
                size += row.byte_end - row.byte_start
    return nats / math.log(2) / size


def summarise(results: list[Result]) -> dict[str, Any]:
    """Return means over the seeds of each method, and paired differences to `ce` over common seeds."""
    by_method: dict[str, dict[int, Result]] = {}
    for result in results:
        by_method.setdefault(result.method, {})[result.seed] = result
    if not by_method:
        return {"methods": {}}
    documents = sorted({row["document"] for row in results[0].rows})
    picks = np.random.RandomState(0).randint(len(documents), size=(2000, len(documents)))
    first = results[0].record
    found: dict[str, Any] = {
        "documents": len(documents),
        "held-out bytes": first["held_out"]["bytes"],
        "held-out tokens": first["held_out"]["tokens"],
        "teacher": first["shards"]["teacher"]["name"],
        "teacher tokens": first["shards"]["tokens"],
        "student": {
            "source": Path(first["student"]["source"]).name,
            "layers": first["student"]["layers"],
            "parameters": first["student"]["parameters"],
        },
        "settings": {
            k: first["config"][k]
            for k in ("batch_tokens", "learning_rate", "adam_eps", "dtype", "held_out", "held_out_tokens")
        },
        "steps": first["train"]["steps"],
        "student tokens trained on": first["train"]["tokens"],
        "versions": first["versions"],
        "machine": first.get("hardware", {}).get("machine", ""),
        "methods": {},
    }
    for method, runs in by_method.items():
        agreement = [run.record["held_out"]["after"]["top1_agreement"]["mean"] for run in runs.values()]
        entry: dict[str, Any] = {"seeds": sorted(runs), "agreement": float(np.mean(agreement))}
        paired = sorted(set(runs) & set(by_method.get("ce", {})))
        for measure, (_, above, below, factor) in MEASURES.items():
            mine = [_sums(runs[seed], documents, above, below) for seed in entry["seeds"]]
            per_seed = [float(factor * sums[:, 0].sum() / sums[:, 1].sum()) for sums in mine]
            sums = np.mean(mine, axis=0)
            entry[measure] = {
                "before": results[0].record["held_out"]["before"][measure]["mean"],
                "mean": float(np.mean(per_seed)),
                "per seed": per_seed,
                **_interval(factor * sums[:, 0], sums[:, 1], picks),
            }
            if paired and method != "ce":
                both = [
                    (_sums(runs[seed], documents, above, below), _sums(by_method["ce"][seed], documents, above, below))
                    for seed in paired
                ]
                change = factor * np.mean([one[:, 0] - other[:, 0] for one, other in both], axis=0)
                entry[measure]["minus ce"] = {
                    "mean": float(change.sum() / sums[:, 1].sum()),
                    "per seed": [float(factor * (a - b)[:, 0].sum() / a[:, 1].sum()) for a, b in both],
                    **_interval(change, sums[:, 1], picks),
                }
        found["methods"][method] = entry
    return found


def _sums(result: Result, documents: list[str], above: str, below: str) -> np.ndarray:
    """Return [documents, 2]: the sums of `above` and `below` of each document."""
    at = {document: i for i, document in enumerate(documents)}
    sums = np.zeros((len(documents), 2))
    for row in result.rows:
        sums[at[row["document"]]] += (row[above], row[below])
    return sums


def _interval(above: np.ndarray, below: np.ndarray, picks: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(above[picks].sum(1) / below[picks].sum(1), [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a transformers folder in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).save_pretrained(folder)


def small(folder: Path, to: Path) -> None:
    """Write a student of 7 M parameters with the tokenizer and the (projected) embeddings of a larger model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks.quality.student import fresh

    large = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = fresh(large.get_input_embeddings().weight.detach(), seed=0)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(large.config, name, None))
    model.generation_config = large.generation_config
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)


if __name__ == "__main__":
    main()

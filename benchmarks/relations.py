"""A shallower student with and without relations beside the teacher's records, and what storing the vectors loses.

    python -m benchmarks.relations --scratch DIR --teacher FOLDER
    python -m benchmarks.relations --scratch DIR --teacher FOLDER --page          # run nothing, write the page
    python -m benchmarks.relations --teacher FOLDER --projection FILE.json        # only what storing loses

Arms, at equal steps, with the same rows in the same order and from the same shallower copy of the teacher:

- `kd`: the records alone.
- `relations-W`: the same loss plus W times the relations of the last layer.

Every stage is a public command, or the measurement of this script, and runs once; a killed run continues.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks._stages import Stage, add_options, budget_options, provenances, run_experiment

STORED = ((0, 8), (0, 4), (32, 8), (32, 4), (16, 8))
"""Numbers that are stored of a relation head, 0 for all, and bits of each."""
MODULES = ("json.decoder", "argparse", "heapq")
"""Modules of the standard library that the vectors are measured on."""
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % quantile of Student's t for so many seeds."""


def main() -> None:
    """Run what is missing and write the page; or measure what storing loses."""
    parser = _common.parser(__doc__)
    parser.add_argument("--teacher", required=True, help="transformers folder")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--max-tokens", type=int, default=40_000)
    parser.add_argument("--window-tokens", type=int, default=512)
    parser.add_argument("--layer", type=int, default=-1, help="layer of the teacher; the student's is its last")
    parser.add_argument("--heads", type=int, default=16, help="relation heads")
    parser.add_argument("--student-layers", type=int, default=24)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 1.0], help="weights of the relations")
    add_options(parser, steps=40, batch_tokens=1500, learning_rate=2e-4, page="docs/results/relations.md")
    parser.add_argument("--measured-tokens", type=int, default=384, help="with --projection: tokens of each module")
    parser.add_argument("--projection", type=Path, metavar="FILE", help="only measure what storing loses")
    options = parser.parse_args()
    if options.projection:
        _common.write_json(options.projection, projection(options))
        return
    run_experiment(options, stages(options), collect=collect, text=text)


def stages(options: argparse.Namespace) -> list[Stage]:
    """Return all stages: what storing loses, the cache, the arms of each seed, and their comparisons."""
    shards = options.scratch / "shards"
    layer = ("--layer", str(options.layer), "--heads", str(options.heads))
    measured = ("--measured-tokens", str(options.measured_tokens))
    record = (
        *("--model", options.teacher, "--data", options.data, "--out", str(shards), "--engine", "transformers"),
        *("--max-tokens", str(options.max_tokens), "--window-tokens", str(options.window_tokens)),
        *("--task-tokens", "10000", "--relations", str(options.layer), "--relations-rows", "1"),
        *("--relations-heads", str(options.heads)),
    )
    target = ("--projection", str(options.scratch / "projection.json"))
    return [
        Stage(
            name="projection",
            module="benchmarks.relations",
            arguments=("--teacher", options.teacher, *layer, *measured, *target),
        ),
        Stage(name="record", module="teacher_dump", arguments=record),
        *(stage for seed in options.seeds for stage in _of_seed(options, str(shards), seed)),
    ]


def _of_seed(options: argparse.Namespace, shards: str, seed: int) -> Iterator[Stage]:
    def train(name: str, *further: str) -> Stage:
        arguments = (
            *("--shards", shards, "--student", options.teacher, "--student-layers", str(options.student_layers)),
            *("--out", str(options.scratch / "runs" / name), "--max-steps", str(options.steps), "--seed", str(seed)),
            *("--batch-tokens", str(options.batch_tokens), "--micro-tokens", str(options.batch_tokens)),
            *("--learning-rate", f"{options.learning_rate:g}", "--held-out", "0.2", "--no-tensorboard", *further),
        )
        return Stage(name=name, module="student_train", arguments=arguments, needs=("record",))

    yield train(f"kd-{seed}")
    for weight in options.weights:
        name = f"relations-{weight:g}-{seed}"
        yield train(name, "--relations-weight", f"{weight:g}")
        models = (str(options.scratch / "runs" / each) for each in (name, f"kd-{seed}"))
        compare = ("--evaluate", next(models), "--vs", next(models), "--shards", shards, "--held-out", "0.2")
        result = ("--json", str(options.scratch / "results" / f"{name}.json"))
        yield Stage(
            name=f"{name}-compare", module="student_train", arguments=(*compare, *result), needs=(name, f"kd-{seed}")
        )


def projection(options: argparse.Namespace) -> dict[str, Any]:
    """Return the KL in nats from the teacher's relations to the stored ones, the mean over positions and heads.

    Keys: by kind, the width of a head, the mean entropy of its relations, the KL to equal shares, and the KL of each
    form of `STORED`.
    """
    import torch

    from shards.format.relations import KINDS, RelationLayout
    from teacher_dump.relations.capture import projections

    exact = _vectors(options)
    found: dict[str, Any] = {"heads": options.heads, "tokens": sum(len(row[0]) for row in exact), "kinds": {}}
    widths = tuple(kind.shape[1] // options.heads for kind in exact[0])
    for k, kind in enumerate(KINDS):
        heads = [row[k].unflatten(1, (options.heads, -1)).transpose(0, 1) for row in exact]
        figures: dict[str, Any] = {"width": widths[k], **_spread(heads), "stored": []}
        for dims, bits in STORED:
            layout = RelationLayout(
                layer=0, heads=options.heads, widths=widths, dims=min(dims or widths[k], widths[k]), seed=0
            )
            matrices = projections(layout)[k].float()
            kl = [_kl(x, _rounded(torch.einsum("apw,awd->apd", x, matrices), bits), widths[k]) for x in heads]
            figures["stored"].append({"numbers": layout.stored_widths[k], "bits": bits, "kl": sum(kl) / len(kl)})
        found["kinds"][kind] = figures
    return found


def _vectors(options: argparse.Namespace) -> list[tuple[Any, ...]]:
    """Return queries, keys and values [T, W] of one row of each module."""
    import importlib

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from shards.model_files.attention import attention_maps

    model = AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.teacher)
    maps = attention_maps(model.model.layers[options.layer])
    assert maps is not None
    rows: list[tuple[Any, ...]] = []
    outputs: dict[int, Any] = {}
    for k, module in enumerate(maps):
        module.register_forward_hook(lambda _, __, output, k=k: outputs.__setitem__(k, output[0]))
    for name in MODULES:
        ids = tokenizer(inspect.getsource(importlib.import_module(name)))["input_ids"][: options.measured_tokens]
        with torch.inference_mode():
            model.model(torch.tensor(ids)[None])
        rows.append(tuple(outputs[k].clone() for k in range(len(maps))))
    return rows


def _log_relations(vectors_APd: Any, width: int) -> Any:
    import torch

    scores = vectors_APd @ vectors_APd.transpose(1, 2) / math.sqrt(width)
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).log_softmax(2)


def _kl(exact_APw: Any, stored_APd: Any, width: int) -> float:
    exact, stored = _log_relations(exact_APw, width), _log_relations(stored_APd, width)
    return float((exact.exp() * (exact - stored).nan_to_num(0.0)).sum(2).mean())


def _spread(heads: list[Any]) -> dict[str, float]:
    """Return the mean entropy of relations, and the mean KL to equal shares, in nats."""
    import torch

    entropies, uniform = [], []
    for vectors_APw in heads:
        log = _log_relations(vectors_APw, vectors_APw.shape[2])
        entropy_AP = -(log.exp() * log.clamp_min(-1e4)).sum(2)
        entropies.append(float(entropy_AP.mean()))
        counts_P = torch.arange(1, log.shape[1] + 1)
        uniform.append(float((counts_P.log() - entropy_AP).mean()))
    return {"entropy": sum(entropies) / len(heads), "uniform": sum(uniform) / len(heads)}


def _rounded(vectors: Any, bits: int) -> Any:
    """Return vectors in the codes of the format, or in codes of fewer bits that are made the same way."""
    import torch

    from shards.format.relations import STEPS_PER_OCTAVE

    largest = 2 ** (bits - 1) - 1 + 0.49
    peaks = vectors.abs().amax(-1, keepdim=True).clamp_min(1e-12)
    steps = torch.exp2(torch.ceil(torch.log2(peaks / largest) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE)
    return (vectors / steps).round() * steps


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the finished stages."""
    found: dict[str, Any] = {"provenance": provenances(options.scratch), "projection": None}
    path = options.scratch / "projection.json"
    if path.exists():
        found["projection"] = json.loads(path.read_bytes())
    manifest = options.scratch / "shards" / "manifest.json"
    if manifest.exists():
        data = json.loads(manifest.read_bytes())
        found["cache"] = {"report": data["report"], "totals": data["totals"], "layout": data["layout"]["relations"]}
    found["arms"] = {f"{weight:g}": _arm(options, weight) for weight in options.weights}
    return found


def _arm(options: argparse.Namespace, weight: float) -> dict[str, Any]:
    """Return the comparisons of an arm with `kd`, by seed, and its relation loss at the first and last steps."""
    seeds: dict[str, Any] = {}
    for seed in options.seeds:
        path = options.scratch / "results" / f"relations-{weight:g}-{seed}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_bytes())
        metrics = options.scratch / "runs" / f"relations-{weight:g}-{seed}" / "metrics.jsonl"
        losses = [json.loads(line)["relations_loss"] for line in metrics.read_text().splitlines()]
        few = max(1, len(losses) // 8)
        with_relations, kd = (model["measures"] for model in record["models"])
        seeds[str(seed)] = {
            **{
                measure: {"relations": with_relations[measure], "kd": kd[measure], "difference": difference}
                for measure, difference in record["differences"].items()
            },
            "relation_loss": [sum(losses[:few]) / few, sum(losses[-few:]) / few],
            "on": record["on"],
        }
    return seeds


def over_seeds(values: list[float]) -> dict[str, float]:
    """Return the mean of a difference over seeds, with its 95 % interval by Student's t."""
    mean = sum(values) / len(values)
    if len(values) not in T_95:
        return {"mean": mean, "low": math.nan, "high": math.nan}
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = T_95[len(values)] * deviation / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    return "\n".join(
        (
            "# Hidden-state relations",
            "",
            f"A student of {options.student_layers} of the teacher's layers, {options.steps} steps of "
            f"{options.batch_tokens:,} tokens, peak learning rate {options.learning_rate:g}, relations of the "
            f"teacher's layer {options.layer} and the student's last. Written by",
            "",
            "    python -m benchmarks.relations --scratch DIR --teacher FOLDER \\",
            f"        {budget_options(options)}",
            "",
            *(f"- {line}" for line in found["provenance"]),
            "",
            "## With and without relations",
            "",
            "Held-out KL to the teacher in nats per token, 95 % intervals over documents; the difference is paired.",
            "The last line of a weight is the mean difference over seeds, with an interval by Student's t.",
            "",
            _common.markdown_table(
                ("weight", "seed", "KD", "KD and relations", "difference", "relation loss, first to last steps"),
                list(_arm_rows(found)),
            ),
            "",
            "## What storing loses",
            "",
            "KL in nats from the teacher's relations to those of the stored vectors.",
            "",
            *([_projection_table(found["projection"])] if found["projection"] else ["Not measured yet."]),
        )
    )


def _arm_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for weight, seeds in found["arms"].items():
        for seed, each in seeds.items():
            kl, losses = each["kl"], each["relation_loss"]
            cells = (_common.shown(kl["kd"]), _common.shown(kl["relations"]), _common.shown(kl["difference"], sign="+"))
            yield (weight, seed, *cells, f"{losses[0]:.3f} to {losses[1]:.3f}")
        if len(seeds) > 1:
            mean = over_seeds([each["kl"]["difference"]["mean"] for each in seeds.values()])
            yield (weight, "all", "", "", _common.shown(mean, sign="+"), "")


def _projection_table(found: dict[str, Any]) -> str:
    header = ["kind", "width of a head", "entropy", "equal shares"]
    header += [f"{numbers or 'all'} numbers, {bits} bits" for numbers, bits in STORED]
    rows = [
        [
            *(kind, str(figures["width"]), f"{figures['entropy']:.2f}", f"{figures['uniform']:.2f}"),
            *(f"{form['kl']:.4f}" for form in figures["stored"]),
        ]
        for kind, figures in found["kinds"].items()
    ]
    return _common.markdown_table(header, rows)


if __name__ == "__main__":
    main()

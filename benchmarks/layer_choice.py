"""Layers kept by each measure beside evenly spaced layers, before any training.

Prunes the teacher to each number of layers in all ways and scores it on held-out rows of the cache: KL to the teacher
(nats per token) and top-1 agreement. Layers are measured on training rows. Prints a Markdown table.

    teacher-dump --model smollm2-135m --data stdlib --out /tmp/shards/ --max-tokens 24000 --window-tokens 512
    python -m benchmarks.layer_choice --shards /tmp/shards/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import _common


def main() -> None:
    """Score every number of layers in all ways."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", default="demo/shards/")
    parser.add_argument("--student", default="teacher")
    parser.add_argument("--layers", type=int, nargs="+", default=[27, 24, 20])
    parser.add_argument("--held-out", type=float, default=0.2)
    parser.add_argument("--held-out-tokens", type=int, default=1600)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()

    import torch

    import shards
    from shards.runtime import machine
    from student_train.data.hashing import HeldOutRule
    from student_train.evaluation.held_out import held_out_rows

    cache = shards.open(options.shards)
    rule = HeldOutRule.of(cache.manifest.corpus, fraction=options.held_out)
    rows = held_out_rows(cache, rule=rule, max_tokens=options.held_out_tokens)
    tokens = sum(len(row.tokens) for row in rows)
    documents = len({row.rows[0].document for row in rows})
    print(f"{tokens:,} held-out tokens of {documents} documents; {options.dtype}; {machine.describe(torch)}\n")
    titles = ("layers kept", "`even`", "`importance`", "dropped", "`kl`", "dropped")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for keep in options.layers:
        cells = []
        for choice, kl, agreement in _measure(options, cache, rows, keep):
            cells += [f"{kl:.2f} ({agreement:.2f})", *([] if choice.method == "even" else [_dropped(choice)])]
            print(f"{keep} layers, {choice.method}: {kl:.3f} ({agreement:.3f})", file=sys.stderr, flush=True)
        print(f"| {keep} of {choice.num_layers} | {' | '.join(cells)} |", flush=True)


def _measure(options: argparse.Namespace, cache: Any, rows: list[Any], keep: int) -> Iterator[tuple[Any, float, float]]:
    """Yield (choice, KL, agreement) of evenly spaced layers, then of layers chosen by each measure."""
    from student_train.data.hashing import HeldOutRule
    from student_train.data.packing import Packing
    from student_train.evaluation.held_out import HeldOutSet, score, summary
    from student_train.losses.fused_linear import LossSpec
    from student_train.losses.targets import TargetSpec
    from student_train.model import loading
    from student_train.objectives.distiller import Distiller
    from student_train.objectives.same_tokenizer import SameTokenizer
    from student_train.pruning import layer_choice

    manifest = cache.manifest
    rule = HeldOutRule.of(manifest.corpus, fraction=options.held_out)
    measured: list[Any] = [
        partial(layer_choice.choose_by_influence, method=method, cache=cache, held_out=rule)
        for method in ("importance", "kl")
    ]
    for choose in (layer_choice.choose_evenly, *measured):
        loaded = loading.load(
            options.student,
            layers=keep,
            teacher=manifest.teacher,
            shards_tokenizer=cache.tokenizer_dir,
            seed=0,
            choose=choose,
        )
        objective = SameTokenizer(
            loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.0),
            targets=TargetSpec(
                vocab_size=loaded.vocab_size,
                target_kind="linear",
                skip=max(0, len(manifest.tokenizer.prefix_tokens) - 1),
            ),
            max_row_tokens=loaded.max_row_tokens,
        )
        distiller = Distiller(loaded.model, objective, dtype=options.dtype).eval()
        held_out = HeldOutSet(objective.readable(rows)[0], objective, Packing(micro_tokens=2048))
        scores = score(held_out, partial(_score_batch, distiller))
        found = summary(scores, objective.measures)
        assert found is not None
        yield loaded.layer_choice, found["kl"]["mean"], found["top1_agreement"]["mean"]


def _score_batch(model: Any, batch: Any) -> Any:
    return model(batch, None)


def _dropped(choice: Any) -> str:
    from student_train.pruning.layer_choice import format_ranges

    return format_ranges([i for i in range(choice.num_layers) if i not in choice.kept])


if __name__ == "__main__":
    main()

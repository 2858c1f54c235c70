"""Compare the verifier of features with one whose linear head also reads a checkpoint's embeddings of the programs.

    python -m benchmarks.selection.heads --data DATA --scratch DIR --checkpoint CHECKPOINT --part 4 --samples 5

Both are trained by `evalkit train-verifier` on the same fixed random part of the development tasks of each model: one
task in --part with --samples of its samples, so that a CPU embeds their programs in minutes. DATA and DIR are those of
`benchmarks.selection`, whose page then has a row for each verifier.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import _common
from benchmarks.selection.datasets import DEVELOPMENT, find, learned_from, thinned, train_on

KINDS = {"features": "features", "head": "features and embeddings"}
"""Kinds of verifiers, the names of their folders, and what they read."""
DETAILS = "heads.json"
"""File in a verifier's folder with the part, the checkpoint, the time and the machine."""


def main() -> None:
    """Train both verifiers for each model that has samples and tests of mbpp:train."""
    parser = _common.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the samples")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of evidence and verifiers")
    parser.add_argument("--checkpoint", required=True, help="the model that reads the programs")
    parser.add_argument("--part", type=int, default=4, help="learn from a fixed random 1/N of the tasks (default: 4)")
    parser.add_argument("--samples", type=int, default=5, help="samples of each task (default: 5)")
    parser.add_argument("--data-dir", type=Path, help="folder of benchmark files (default: download them)")
    options = parser.parse_args()
    datasets = find(options.data)
    more = ("--data-dir", str(options.data_dir)) if options.data_dir else ()
    for model in dict.fromkeys(dataset.model for dataset in datasets):
        used = learned_from(datasets, model)
        if not any(dataset.task == DEVELOPMENT[0] for dataset in used):
            continue
        evidence = used[0].evidence(options.scratch)
        parts = [thinned(dataset, options.scratch, options.part, num_samples=options.samples) for dataset in used]
        for kind in KINDS:
            chosen = ("--model", options.checkpoint) if kind == "head" else ()
            folder = options.scratch / model / f"verifier-{kind}"
            if (folder / DETAILS).exists():
                continue
            begin = time.perf_counter()
            train_on(parts, folder, evidence, (*chosen, *more))
            details = {
                "part": options.part,
                "samples": options.samples,
                "checkpoint": Path(options.checkpoint).name if chosen else None,
            }
            details |= {"seconds": round(time.perf_counter() - begin), "where": _common.provenance()}
            _common.write_json(folder / DETAILS, details)


if __name__ == "__main__":
    main()

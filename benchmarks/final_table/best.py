"""Choose the best arm by MBPP's validation part, and give its students and samples the names `best-SEED`.

    python -m benchmarks.final_table.best --scratch DIR --arms sft,kd --seeds 0,1 --tasks mbpp --cache responses

The score is pass@1 of the samples, over problems and seeds. Of equal scores, fewer bits per byte on held-out rows of
the cache decide. The problems of the table play no part. `best.json` holds the scores and the choice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks import _common


def main() -> None:
    """Choose, and write links."""
    parser = _common.parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--cache", required=True, help="cache of the comparisons")
    parser.add_argument("--arms", required=True, help="separated by commas")
    parser.add_argument("--seeds", required=True, help="separated by commas")
    parser.add_argument("--tasks", required=True, help="separated by commas")
    options = parser.parse_args()
    arms, seeds, tasks = (getattr(options, name).split(",") for name in ("arms", "seeds", "tasks"))
    scores = {
        arm: {
            "pass@1": sum(_pass_rate(options.scratch, f"{arm}-{seed}") for seed in seeds) / len(seeds),
            "bits per byte": sum(_bits(options.scratch, f"{arm}-{seed}", options.cache) for seed in seeds) / len(seeds),
        }
        for arm in arms
    }
    best = choose(scores)
    for seed in seeds:
        link(options.scratch / "runs" / f"best-{seed}", f"{best}-{seed}")
        for task in tasks:
            name = f"{task}-samples.samples.jsonl"
            link(options.scratch / "scores" / f"best-{seed}-{name}", f"{best}-{seed}-{name}")
    _common.write_json(options.scratch / "best.json", {"arm": best, "scores": scores})


def choose(scores: dict[str, dict[str, float]]) -> str:
    """Return the arm with the largest pass@1; of equal ones that with the fewest bits per byte."""
    return max(scores, key=lambda arm: (scores[arm]["pass@1"], -scores[arm]["bits per byte"]))


def link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, in place of another link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    os.replace(unfinished, path)


def _pass_rate(scratch: Path, name: str) -> float:
    scores: dict[str, Any] = json.loads((scratch / "scores" / f"{name}-validation.json").read_bytes())["scores"]
    return float(scores["mbpp:validation"]["pass@1"])


def _bits(scratch: Path, name: str, cache: str) -> float:
    models = json.loads((scratch / "held_out" / f"{name}-{cache}.json").read_bytes())["models"]
    return float(models[0]["measures"]["bits_per_byte"]["mean"])


if __name__ == "__main__":
    main()

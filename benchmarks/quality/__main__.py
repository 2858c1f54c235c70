"""Run the unfinished part of the experiment and write the page.

    python -m benchmarks.quality --scratch DIR            # everything: two hours on two idle cores
    python -m benchmarks.quality --scratch DIR --table    # only the page, from the finished runs

DIR holds the teacher's hidden states, the shards and the scores of each finished run; nothing in it is computed again.
When the shards exist, several processes may share the runs. A killed process leaves a `*.claim` file: delete it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks import _common
from benchmarks.quality import records, report
from benchmarks.quality.plan import METHODS, PILOT, PILOT_FOLDER, PILOT_WINDOWS, Run, runs
from benchmarks.quality.records import Record
from benchmarks.quality.student import score, train
from benchmarks.quality.teacher import NAME, Taught, ask
from shards.format.chunk import Chunk
from teacher_dump.config import DumpConfig
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.model.teachers import resolve


def main() -> None:
    """Run what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of intermediate results")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if not options.table:
        options.scratch.mkdir(parents=True, exist_ok=True)
        run(options.scratch)
    report.write(options.scratch, options.out)


def run(scratch: Path) -> None:
    """Run everything that `scratch` does not hold yet."""
    taught, held = ask(scratch, tell)
    pilot(scratch / PILOT_FOLDER, taught)
    write_shards([method.record for method in METHODS.values()], taught, scratch)
    work(scratch, taught, held, runs(scratch / PILOT_FOLDER))


def pilot(folder: Path, taught: Taught) -> None:
    """Try learning rates on the first training windows and score them on the next ones, not on held-out documents."""
    first, next_ = taught.part(0, PILOT_WINDOWS[0]), taught.part(*PILOT_WINDOWS)
    write_shards([records.BASE], first, folder)
    work(folder, first, next_, PILOT)


def write_shards(wanted: list[Record], taught: Taught, folder: Path) -> None:
    """Write the shards of the given records."""
    model = resolve(NAME)
    config = DumpConfig(model=NAME, data="stdlib", out=folder)
    whitespace_V = torch.from_numpy(engine_config(config, model, record_layout(config, model)[1]).whitespace_mask())
    records.write(wanted, taught, folder, whitespace_V, tell)


def work(scratch: Path, taught: Taught, held: Taught, plan: list[Run]) -> None:
    """Do the runs without scores in `scratch` that no other process has claimed."""
    for run in plan:
        claim = run.file(scratch).with_suffix(".claim")
        if run.file(scratch).exists():
            continue
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            run_one(scratch, taught, held, run)
        finally:
            claim.unlink()


def run_one(scratch: Path, taught: Taught, held: Taught, run: Run) -> None:
    """Train one student, score it and write its scores."""
    method = run.method
    tell(f"{method.name}, seed {run.seed}, learning rate {run.setting.peak:g}, epsilon {run.setting.eps:g}")
    rows, entry = records.read(method.record, scratch, len(taught.weight))
    same_tokens(taught, rows)
    began = time.time()
    model = train(run, taught, rows, tell)
    seconds = time.time() - began
    scores = score(model, held)
    result = {
        "method": method.name,
        "seed": run.seed,
        **asdict(run.setting),
        "seconds": round(seconds, 1),
        "bytes_per_token": entry.bytes / entry.tokens if method.kind else None,
        "entries": records.entries(rows) if method.kind else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train": {"positions": sum(len(h) for h in taught.hidden), "windows": len(taught.windows)},
        "scores": [asdict(score) for score in scores],
    }
    path = run.file(scratch)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    os.replace(part, path)
    count = sum(s.positions for s in scores)
    tell(f"  held out: KL {sum(s.kl_sum for s in scores) / count:.4f}, "
         f"cross-entropy {sum(s.nll_sum for s in scores) / count:.4f} nat")  # fmt: skip


def same_tokens(taught: Taught, rows: list[Chunk]) -> None:
    """Raise ValueError if the tokens of the rows are not those of the windows."""
    if len(rows) != len(taught.windows):
        raise ValueError(f"found {len(rows)} rows, expected {len(taught.windows)}; empty the scratch folder")
    for window, row in zip(taught.windows, rows, strict=True):
        if not np.array_equal(window.tokens, row.tokens):
            raise ValueError(f"found other tokens in {window.info.path}; empty the scratch folder")


def tell(text: str) -> None:
    """Print a progress line with the time of day."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()

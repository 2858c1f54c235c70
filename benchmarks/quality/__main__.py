"""Run the experiment, or what is left of it; then make the page.

    python -m benchmarks.quality --scratch DIR            # everything: two hours on two quiet cores
    python -m benchmarks.quality --scratch DIR --table    # only the page, from what has run

The teacher's hidden states, the shards and the scores of each finished run lie in DIR; what is there is not made again.
Once the shards are there, several processes may share the runs; a killed one leaves `*.claim`, to be deleted.
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
    """Parse the command line and do what it says."""
    parser = _common.parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for all that can be made again")
    parser.add_argument("--table", action="store_true", help="only make the page")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if not options.table:
        options.scratch.mkdir(parents=True, exist_ok=True)
        run(options.scratch)
    report.write(options.scratch, options.out)


def run(scratch: Path) -> None:
    """Do everything that `scratch` does not hold yet."""
    taught, held = ask(scratch, tell)
    pilot(scratch / PILOT_FOLDER, taught)
    keep([method.record for method in METHODS.values()], taught, scratch)
    work(scratch, taught, held, runs(scratch / PILOT_FOLDER))


def pilot(folder: Path, taught: Taught) -> None:
    """Try learning rates on the first training windows, scored on the next ones: held-out documents stay unseen."""
    first, next_ = taught.part(0, PILOT_WINDOWS[0]), taught.part(*PILOT_WINDOWS)
    keep([records.BASE], first, folder)
    work(folder, first, next_, PILOT)


def keep(wanted: list[Record], taught: Taught, folder: Path) -> None:
    """Write shards."""
    model = resolve(NAME)
    config = DumpConfig(model=NAME, data="stdlib", out=folder)
    whitespace_V = torch.from_numpy(engine_config(config, model, record_layout(config, model)[1]).whitespace_mask())
    records.write(wanted, taught, folder, whitespace_V, tell)


def work(scratch: Path, taught: Taught, held: Taught, plan: list[Run]) -> None:
    """Do the runs that have no scores in `scratch` yet and that no other process has begun."""
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
    """Train and score one student, and write its scores."""
    method = run.method
    tell(f"{method.name}, seed {run.seed}, learning rate {run.setting.peak:g}, epsilon {run.setting.eps:g}")
    rows, entry = records.read(method.record, scratch, len(taught.weight))
    same_tokens(taught, rows)
    began = time.time()
    model = train(run, taught, rows, tell)
    seconds = time.time() - began
    scores = score(model, held)
    found = {
        "method": method.name,
        "seed": run.seed,
        **asdict(run.setting),
        "seconds": round(seconds, 1),
        "bytes_per_token": entry.bytes / entry.tokens if method.kind else None,
        "entries": records.entries(rows) if method.kind else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train": {"positions": sum(len(h) for h in taught.hidden), "windows": len(taught.windows)},
        "scores": [asdict(one) for one in scores],
    }
    path = run.file(scratch)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found))
    os.replace(part, path)
    count = sum(s.positions for s in scores)
    tell(f"  held out: KL {sum(s.kl_sum for s in scores) / count:.4f}, "
         f"cross-entropy {sum(s.nll_sum for s in scores) / count:.4f} nat")  # fmt: skip


def same_tokens(taught: Taught, rows: list[Chunk]) -> None:
    """Raise ValueError unless the rows are those of the windows."""
    if len(rows) != len(taught.windows):
        raise ValueError(f"found {len(rows)} rows, expected {len(taught.windows)}; empty the scratch folder")
    for window, row in zip(taught.windows, rows, strict=True):
        if not np.array_equal(window.tokens, row.tokens):
            raise ValueError(f"found another text in {window.info.path}; empty the scratch folder")


def tell(text: str) -> None:
    """Say how far things are."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()

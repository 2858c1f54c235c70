"""Programs checked per second on HumanEval+ and MBPP+, beside EvalPlus 0.3.1 on the same programs.

    python -m benchmarks.evalkit_plus --peer PYTHON --data-dir FOLDER [--tasks humaneval+,mbpp+] [--rounds 3]

Programs: the samples that the authors of Qwen2.5-Coder published for their 1.5B base model, `--copies` of each. An
unused name makes the copies distinct, so that neither side checks one of them for several. With `--apart comment` a
comment does, and evalkit checks equal syntax trees once. FOLDER holds the data files of EvalPlus and these samples;
PYTHON is an interpreter with `evalplus==0.3.1`. Both sides run as commands, from start to exit, in turn:

evalkit    `evalkit score --samples` with an empty cache; it also runs the references and writes its page
EvalPlus   `python -m evalplus.evaluate --parallel 2`; the answers of its references are cached before it starts

Prints medians of the rounds as Markdown, and every verdict on which the sides differ. CPU seconds include all processes
of a side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _common
from evalkit.tasks import registry
from evalkit.tasks.download import locate
from evalkit.tasks.evalplus import HUMANEVAL_PLUS, MBPP_PLUS

Verdicts = dict[str, list[tuple[bool, bool]]]
"""By task: (base passes, base and plus pass) of each copy."""


@dataclass(frozen=True)
class SideRun:
    """One side's run over all programs."""

    wall_s: float
    cpu_s: float
    verdicts: Verdicts


APART = {"name": "\n_copy = {}\n", "comment": "\n# {}\n"}
"""The text at the end of each copy, by kind."""


def write_samples(task: str, data_dir: Path, copies: int, path: Path, *, end: str = APART["name"]) -> int:
    """Write the programs, each followed by `end` with the number of the copy; return how many there are."""
    problems = {problem.task_id: problem for problem in registry.load(task, data_dir=data_dir).problems}
    published = data_dir / "qwen2.5-coder-1.5b" / f"1.5b-base-{task.rstrip('+')}-generated.jsonl"
    rows = [row for row in map(json.loads, published.read_text().splitlines()) if row["task_id"] in problems]
    with path.open("w") as stream:
        for copy in range(copies):
            for row in rows:
                text = f"{problems[row['task_id']].prompt}{row['completion']}{end.format(copy)}"
                stream.write(json.dumps({"task_id": row["task_id"], "solution": text}) + "\n")
    return copies * len(rows)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return wall seconds and CPU seconds, children included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_evalkit(task: str, samples: Path, data_dir: Path, folder: Path) -> SideRun:
    """Check the samples with evalkit and an empty cache."""
    command = [sys.executable, "-m", "evalkit", "score", "--samples", str(samples), "--tasks", task, "--no-cache"]
    command += ["--data-dir", str(data_dir), "--out", str(folder)]
    with tempfile.TemporaryDirectory() as cache:
        wall_s, cpu_s = timed(command, os.environ | {"XDG_CACHE_HOME": cache})
    (path,) = folder.rglob("score.json")
    tasks: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())["tasks"]
    path.unlink()
    verdicts = {
        task_id: [(bool(copy["base_passed"]), bool(copy["passed"])) for copy in copies]
        for task_id, copies in tasks.items()
    }
    return SideRun(wall_s, cpu_s, verdicts)


def by_evalplus(task: str, samples: Path, data_dir: Path, peer: str, cache: Path) -> SideRun:
    """Check the samples with EvalPlus."""
    environment = os.environ | {
        "HUMANEVAL_OVERRIDE_PATH": str(locate(HUMANEVAL_PLUS, data_dir)),
        "MBPP_OVERRIDE_PATH": str(locate(MBPP_PLUS, data_dir)),
        "XDG_CACHE_HOME": str(cache),
    }
    results = samples.with_name(f"{samples.stem}_eval_results.json")
    results.unlink(missing_ok=True)
    command = [peer, "-m", "evalplus.evaluate", "--dataset", task.rstrip("+"), "--samples", str(samples)]
    wall_s, cpu_s = timed([*command, "--parallel", "2"], environment)
    tasks: dict[str, list[dict[str, Any]]] = json.loads(results.read_text())["eval"]
    verdicts = {
        task_id: [(c["base_status"] == "pass", c["base_status"] == c["plus_status"] == "pass") for c in copies]
        for task_id, copies in tasks.items()
    }
    return SideRun(wall_s, cpu_s, verdicts)


def compare(task: str, options: argparse.Namespace) -> None:
    """Run both sides in turn on one benchmark and print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, samples = folder / "few.jsonl", folder / "samples.jsonl"
        write_samples(task, options.data_dir, 1, few)
        number = write_samples(task, options.data_dir, options.copies, samples, end=APART[options.apart])
        by_evalplus(task, few, options.data_dir, options.peer, folder / "cache")  # caches the answers of its references
        rounds: list[tuple[SideRun, SideRun]] = []
        for _ in range(options.rounds):
            ours = by_evalkit(task, samples, options.data_dir, folder / "out")
            theirs = by_evalplus(task, samples, options.data_dir, options.peer, folder / "cache")
            rounds.append((ours, theirs))
            for task_id, verdicts in theirs.verdicts.items():
                if ours.verdicts[task_id] != verdicts:
                    print(f"{task_id}: EvalPlus {sorted(set(verdicts))}, evalkit {sorted(set(ours.verdicts[task_id]))}")
    print(f"{task}, {number} programs, made distinct by a {options.apart}, {options.rounds} rounds\n")
    rows = []
    ratio = statistics.median(theirs.wall_s / ours.wall_s for ours, theirs in rounds)
    for side, label, shown in ((1, "EvalPlus 0.3.1, two workers", "1.0"), (0, "evalkit", f"{ratio:.1f}")):
        rates = sorted(number / pair[side].wall_s for pair in rounds)
        cpu_s = statistics.median(pair[side].cpu_s for pair in rounds) / number
        rate = f"{statistics.median(rates):.1f} ({rates[0]:.1f} to {rates[-1]:.1f})"
        rows.append((label, rate, f"{cpu_s:.3f}", shown))
    print(_common.markdown_table(("", "programs per second", "CPU seconds per program", "ratio of rates"), rows))
    print(flush=True)


def main() -> None:
    """Compare both sides on each benchmark."""
    parser = _common.parser(__doc__)
    parser.add_argument("--peer", required=True, help="interpreter with evalplus==0.3.1")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", default="humaneval+,mbpp+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--apart", default="name", choices=tuple(APART))
    options = parser.parse_args()
    print(f"{_common.provenance()}, load of others {os.getloadavg()[0]:.1f}\n", flush=True)
    for task in options.tasks.split(","):
        compare(task, options)


if __name__ == "__main__":
    main()

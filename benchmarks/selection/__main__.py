"""Compare the methods that choose among samples, and write docs/results/selection.md.

    python -m benchmarks.selection --data DATA --scratch DIR             # everything that is missing
    python -m benchmarks.selection --data DATA --scratch DIR --table     # only the page, from finished datasets
    python -m benchmarks.selection --data DATA --scratch DIR --checkpoint MODEL=PATH --n 50    # writes the samples, too

DATA holds MODEL/TASK/samples.jsonl, tests.jsonl and greedy.jsonl; TASK is humaneval, mbpp, mbpp:train or
mbpp:validation. DIR holds evidence and the tables of finished datasets. A killed run goes on where it was; a dataset is
computed again when one of its files, or the code of a method, changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.selection import development, measure, report
from benchmarks.selection.datasets import SCORED, Dataset, find, generate, thinned, train_verifier, verifier_of


def main() -> None:
    """Measure what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the samples")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of evidence and finished tables")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="MODEL=PATH", help="write missing samples")
    parser.add_argument("--n", type=int, default=50, help="samples and texts of tests per problem (default: 50)")
    parser.add_argument("--engine", default="auto", help="engine of the generation")
    parser.add_argument("--only", default="", help="only datasets whose MODEL/TASK holds this text")
    parser.add_argument("--mbpp-part", type=int, default=1, help="score a fixed random 1/N of MBPP (default: all)")
    parser.add_argument("--data-dir", type=Path, help="folder of benchmark files (default: download them)")
    parser.add_argument("--without-verifier", action="store_true", help="train none, and leave the method out")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    data_dir = ("--data-dir", str(options.data_dir)) if options.data_dir else ()
    for checkpoint in options.checkpoint:
        model, _, path = checkpoint.partition("=")
        generate(options.data, model, path, options.n, ("--engine", options.engine, *data_dir))
    datasets = find(options.data)
    if not datasets:
        raise SystemExit(f"{options.data}: holds no MODEL/TASK/samples.jsonl; name --checkpoint to write them")
    results = []
    for dataset in datasets:
        if options.only not in f"{dataset.model}/{dataset.task}":
            continue
        if dataset.task == "mbpp":
            dataset = thinned(dataset, options.scratch, options.mbpp_part)
        result = stored(dataset, options.scratch, any_code=options.table)
        if not options.table:
            has_verifier = dataset.task in SCORED and not options.without_verifier
            learner = verifier_of(datasets, dataset) if has_verifier else ""
            verifier = train_verifier(datasets, learner, options.scratch, data_dir) if learner else None
            place = measure.Place(scratch=options.scratch, data_dir=options.data_dir, verifier=verifier)
            result = run(dataset, place, result, learner)
        if result:
            results.append(result)
    report.write(results, options.scratch, options.out)


def stored(dataset: Dataset, scratch: Path, *, any_code: bool) -> dict[str, Any]:
    """Return the tables of a dataset that were computed from the same files, and by the same code."""
    path = dataset.scratch(scratch) / "tables.json"
    result: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    is_current = result.get("files") == dataset.digests() and (any_code or result.get("code") == code_digest())
    return result if is_current else {}


def code_digest() -> str:
    """Return the digest of the code that ranks, and of this experiment's files."""
    files = [*(_common.ROOT / "evalkit/rerank").rglob("*.py"), *Path(__file__).parent.glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.stem not in ("__main__", "cells", "heads", "pictures", "report", "verifier_tables"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(dataset: Dataset, place: measure.Place, result: dict[str, Any], learner: str) -> dict[str, Any]:
    """Compute the tables of one dataset that are missing; store each as soon as it is finished.

    Args:
        dataset: Samples and tests.
        place: Folders and verifier.
        result: Finished tables.
        learner: The model whose samples the verifier learned from.
    """
    print(f"{dataset.model}, {dataset.task}", flush=True)
    outcome = cache(partial(measure.ranked, dataset, place))
    parts: dict[str, Callable[[], Any]] = {
        "facts": lambda: measure.facts(outcome()),
        "methods": lambda: measure.methods_table(outcome(), measure.greedy_rates(dataset, place)),
    }
    if dataset.task in SCORED:
        parts["samples"] = lambda: measure.by_samples(outcome())
        parts["texts"] = lambda: measure.by_texts(outcome(), dataset)
        parts["sources"] = lambda: measure.by_sources(dataset, place)
    else:
        parts["values"] = lambda: development.values(measure.scored(outcome()))
    if result.get("verifier_of") != learner:
        result = {name: table for name, table in result.items() if name in ("facts", "sources", "values")}
    result |= {"model": dataset.model, "task": dataset.task, "files": dataset.digests(), "code": code_digest()}
    result |= {"verifier_of": learner, "where": _common.provenance()}
    path = dataset.scratch(place.scratch) / "tables.json"
    for name, compute in parts.items():
        if name not in result:
            result[name] = compute()
            unfinished = path.with_suffix(".part")
            unfinished.write_text(json.dumps(result, indent=1))
            os.replace(unfinished, path)
    return result


if __name__ == "__main__":
    main()

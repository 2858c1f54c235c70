"""`student-train --evaluate`: compare any model with the teacher from the cache alone, and a second model with both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import shards
from shards.format.chunk import Chunk
from shards.model_files.tokenizer import TokenizerRules
from shards.storage.atomic import write_atomic
from student_train.config import Config
from student_train.data.hashing import HeldOutRule
from student_train.errors import TrainError
from student_train.evaluation.comparison import comparison
from student_train.evaluation.held_out import held_out_rows
from student_train.evaluation.intervals import Interval, interval_text
from student_train.evaluation.model_scores import score_model
from student_train.evaluation.request import EvaluationRequest
from student_train.evaluation.token_kinds import kinds_of_ids
from student_train.objectives.row_score import LABELS
from student_train.outputs.run_record import versions
from student_train.training.distributed import init_distributed
from student_train.training.hardware import lines_for, settle
from student_train.training.runtime import deterministic

FORMAT = 1


def evaluate(
    config: Config, request: EvaluationRequest, *, command: Sequence[str], log: Callable[[str], None]
) -> dict[str, Any]:
    """Score one or two models on rows of a cache, and return the record.

    Args:
        config: Settings: shards, held-out share, dtype, device; those of training have no effect.
        request: The models, which are in memory one after the other, the rows, and the file of the result.
        command: Command line, for the record.
        log: Prints a line for people.

    Raises:
        TrainError: Something that a user can fix.
        shards.ShardError: The cache is damaged, incomplete or unreachable.
    """
    if len(config.sources) > 1:
        raise TrainError(
            f"evaluate: found {len(config.sources)} caches, expected one; evaluate on each of them by itself"
        )
    cache = shards.open(config.sources[0].path)
    rows = _rows(config, cache, request.evaluate_on)
    with deterministic(), init_distributed(config.device) as world:
        if world.size > 1:
            raise TrainError(f"evaluate: found {world.size} ranks, expected one process; start it without torchrun")
        hardware = settle(config, device=world.device)
        for line in lines_for(hardware, device=world.device):
            log(line)
        scores = [score_model(name, hardware.config, cache, rows, world=world, log=log) for name in request.models]
    table = TokenizerRules.load(cache.tokenizer_dir).token_bytes()
    kinds_V = kinds_of_ids(table, cache.manifest.layout.vocab_size)
    teacher = cache.manifest.teacher
    record = {
        "format": FORMAT,
        "shards": {
            "manifest_sha256": cache.manifest_sha256,
            "teacher": {name: getattr(teacher, name) for name in ("name", "repo", "revision", "weights_sha256")},
            "bytes_per_token": cache.bytes_per_token,
        },
        "chosen": {"rows": request.evaluate_on, "held_out": config.held_out, "most_tokens": config.held_out_tokens},
        **comparison(scores, rows, table=table, kinds_V=kinds_V),
        "hardware": hardware.to_dict(),
        "versions": versions(),
        "command": list(command),
    }
    if request.json:
        write_atomic(Path(request.json), (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return record


def _rows(config: Config, cache: shards.Cache, on: str) -> list[Chunk]:
    """Return the rows to score on."""
    if on == "all":
        return [chunk.row(r) for chunk in (cache[i] for i in range(len(cache))) for r in range(len(chunk.rows))]
    rule = HeldOutRule.of(cache.manifest.corpus, fraction=config.held_out)
    rows = held_out_rows(cache, rule=rule, max_tokens=config.held_out_tokens)
    if not rows:
        raise TrainError(
            f"{config.shard_paths}: found no held-out document at a share of {config.held_out}, expected at least one; "
            "raise --held-out, or evaluate on all rows with --evaluate-on all"
        )
    return rows


def table_lines(record: dict[str, Any]) -> list[str]:
    """Return the table for the terminal: a line for each measure, a column for each model, and the difference."""
    on, models = record["on"], record["models"]
    lines = [f"{on['rows']:,} rows, {on['documents']:,} documents, {on['tokens']:,} tokens"]
    for number, model in enumerate(models, 1):
        lines.append(f"{number}: {model['source']}, {model['parameters']:,} parameters")
    for name in dict.fromkeys(name for model in models for name in model["measures"]):
        cells = [_cell(model["measures"].get(name)) for model in models]
        difference = record.get("differences", {}).get(name)
        if difference is not None:
            cells.append(_cell(difference, sign="+"))
        lines.append(f"  {LABELS.get(name, name.replace('_', ' ')):24}" + "".join(f"{cell:>30}" for cell in cells))
    return lines


def _cell(interval: Interval | None, *, sign: str = "") -> str:
    return "-" if interval is None else interval_text(interval, f"{sign}.4f")

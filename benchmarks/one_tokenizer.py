"""KD beside SFT on responses where teacher and student have one tokenizer: the control of the final table.

    python -m benchmarks.one_tokenizer --scratch DIR --mbpp mbpp.jsonl
    python -m benchmarks.one_tokenizer --scratch DIR --mbpp mbpp.jsonl --page      # run nothing, write the page

A teacher answers prompts of MBPP's training part and is recorded. Two copies of it with fewer layers learn from the
same answers, at equal steps and from the same rows in the same order: `sft` from the text, `kd` from the records.

Every stage is a public command and runs once; a killed run continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _commands, _common
from benchmarks._stages import Stage, add_options, budget_options, provenances, run_experiment

ARMS = {"sft": ("--objective", "sft"), "kd": ()}
"""Options of student-train for each arm."""
MEASURES = {"kl": "KL in nats per token", "bits_per_byte": "bits per byte", "top1_agreement": "top-1 agreement"}


def main() -> None:
    """Run what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--teacher", default="smollm2-135m", help="short name or transformers folder")
    parser.add_argument("--mbpp", type=Path, required=True, help="mbpp.jsonl")
    parser.add_argument("--prompts", type=int, default=110)
    parser.add_argument("--samples", type=int, default=2, help="responses to each prompt")
    parser.add_argument("--new-tokens", type=int, default=320, help="most tokens of a response")
    parser.add_argument("--student-layers", type=int, default=24)
    add_options(parser, steps=40, batch_tokens=1024, learning_rate=3e-4, page="docs/results/responses.md")
    options = parser.parse_args()
    run_experiment(options, stages(options), collect=collect, text=text)


def stages(options: argparse.Namespace) -> list[Stage]:
    """Return all stages: the cache, then the arms of each seed and their comparison."""
    writing = _commands.writing(
        model=options.teacher,
        prompts=f"mbpp:train={options.mbpp}",
        out=str(options.scratch / "shards"),
        samples=options.samples,
        new_tokens=options.new_tokens,
    )
    few = ("--max-documents", str(options.prompts), "--decontaminate", f"humaneval,mbpp={options.mbpp}")
    record = Stage(name="record", module="teacher_dump", arguments=(*writing, *few))
    return [record, *(stage for seed in options.seeds for stage in _of_seed(options, seed))]


def _of_seed(options: argparse.Namespace, seed: int) -> Iterator[Stage]:
    shards = str(options.scratch / "shards")
    budget = _commands.TrainingBudget(
        steps=options.steps,
        batch_tokens=options.batch_tokens,
        micro_tokens=options.batch_tokens,
        learning_rate=options.learning_rate,
    )
    students = {arm: str(options.scratch / "runs" / f"{arm}-{seed}") for arm in ARMS}
    for arm, student in students.items():
        training = _commands.training(shards=shards, student=options.teacher, out=student, seed=seed, budget=budget)
        shallow = ("--student-layers", str(options.student_layers), *ARMS[arm])
        yield Stage(name=f"{arm}-{seed}", module="student_train", arguments=(*training, *shallow), needs=("record",))
    result = str(options.scratch / "results" / f"{seed}.json")
    comparing = _commands.comparing(model=students["kd"], shards=shards, result=result)
    yield Stage(
        name=f"compare-{seed}",
        module="student_train",
        arguments=(*comparing, "--vs", students["sft"]),
        needs=tuple(f"{arm}-{seed}" for arm in ARMS),
    )


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the finished stages: what was recorded, and the comparisons by seed."""
    found: dict[str, Any] = {"provenance": provenances(options.scratch), "cache": {}, "seeds": {}}
    manifest = options.scratch / "shards" / "manifest.json"
    if manifest.exists():
        found["cache"] = json.loads(manifest.read_bytes())["totals"]
    for seed in options.seeds:
        path = options.scratch / "results" / f"{seed}.json"
        if path.exists():
            found["seeds"][str(seed)] = _figures(json.loads(path.read_bytes()), options.scratch / "runs" / f"kd-{seed}")
    return found


def _figures(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return each measure of both arms with the paired difference, and of the student before training."""
    kd, sft = (model["measures"] for model in record["models"])
    before = json.loads((run / "run.json").read_bytes())["held_out"]["before"]
    return {
        measure: {
            "before": before[measure],
            "sft": sft[measure],
            "kd": kd[measure],
            "difference": record["differences"][measure],
        }
        for measure in MEASURES
    } | {"on": record["on"]}


def text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    rows = [
        (title, seed, *(_common.shown(each[measure][name]) for name in ("before", "sft", "kd")),
         _common.shown(each[measure]["difference"], sign="+"))
        for measure, title in MEASURES.items()
        for seed, each in found["seeds"].items()
    ]  # fmt: skip
    return "\n".join(
        (
            "# Distilling on responses",
            "",
            "Does a student learn more from a teacher's distribution over its responses than from the responses alone?",
            "Students with another tokenizer and another chat template are rows of [the final table](final_table.md).",
            "This page has the control: teacher and student have one tokenizer.",
            "",
            f"The teacher, `{options.teacher}`, answers {options.prompts} prompts of MBPP's training part, "
            f"{options.samples} times",
            f"each, and is recorded. Students keep {options.student_layers} of its layers and learn from the answers:",
            "SFT from the text, KD from the records. Prompts and answers were checked against HumanEval and the test",
            f"part of MBPP. {options.steps} steps of {options.batch_tokens:,} tokens, peak learning rate "
            f"{options.learning_rate:g}. Written by",
            "",
            f"    python -m benchmarks.one_tokenizer --scratch DIR --mbpp mbpp.jsonl --prompts {options.prompts} \\",
            f"        --samples {options.samples} {budget_options(options)}",
            "",
            *(f"- {line}" for line in found["provenance"]),
            "",
            "On answers to prompts that no student is trained on; 95 % intervals over prompts. The difference is KD",
            "minus SFT, paired.",
            "",
            _common.markdown_table(("measure", "seed", "before training", "SFT", "KD", "difference"), rows),
        )
    )


if __name__ == "__main__":
    main()

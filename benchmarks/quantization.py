"""Training with rounded weights beside rounding a trained student: KL to the teacher of the quantised copies.

    python -m benchmarks.quantization --scratch DIR --shards demo/shards/
    python -m benchmarks.quantization --scratch DIR --shards demo/shards/ --page

The student is the teacher of the shards with all of its layers, so all of its KL comes from rounding. Arms, at equal
steps and with the same rows:

- `after`: trained with float weights, then quantised.
- `while`: trained with `--quantize`.

Every stage is a public command, or the export of this script, and runs once; a killed run continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks._stages import Stage, add_options, budget_options, provenances, run_experiment

KINDS = ("int8", "int4")


def main() -> None:
    """Run what is missing and write the page; or quantise one folder."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", default="demo/shards/")
    parser.add_argument("--student", default="smollm2-135m", help="the teacher of the shards by short name or folder")
    add_options(parser, steps=20, batch_tokens=1024, learning_rate=2e-5, page="docs/results/quantization.md")
    parser.add_argument("--quantise", nargs=2, metavar=("FOLDER", "TYPE"), help="only write the quantised copy")
    options = parser.parse_args()
    if options.quantise:
        from student_train.outputs.quantised_export import export_quantised

        export_quantised(Path(options.quantise[0]), options.quantise[1])
        return
    run_experiment(options, stages(options), collect=collect, text=text)


def stages(options: argparse.Namespace) -> list[Stage]:
    """Return all stages of the experiment: the rounded teacher, then the arms of each seed."""
    return [stage for seed in options.seeds for stage in _of_seed(options, seed)]


def _of_seed(options: argparse.Namespace, seed: int) -> list[Stage]:
    plain = f"float-{seed}"
    found = [_train(options, plain, seed)]
    for kind in KINDS:
        trained = f"{kind}-{seed}"
        after, aware = (str(options.scratch / "runs" / name / kind) for name in (plain, trained))
        quantise = ("--quantise", str(options.scratch / "runs" / plain), kind)
        compare = ("--evaluate", aware, "--vs", after, "--shards", options.shards, "--held-out", "0.2")
        result = ("--json", str(options.scratch / "results" / f"{trained}.json"))
        found += [
            _train(options, trained, seed, "--quantize", kind),
            Stage(name=f"{trained}-after", module="benchmarks.quantization", arguments=quantise, needs=(plain,)),
            Stage(
                name=f"{trained}-compare",
                module="student_train",
                arguments=(*compare, *result),
                needs=(trained, f"{trained}-after"),
            ),
        ]
    return found


def _train(options: argparse.Namespace, name: str, seed: int, *further: str) -> Stage:
    arguments = (
        *("--shards", options.shards, "--student", options.student, "--out", str(options.scratch / "runs" / name)),
        *("--max-steps", str(options.steps), "--seed", str(seed), "--learning-rate", f"{options.learning_rate:g}"),
        *("--batch-tokens", str(options.batch_tokens), "--micro-tokens", str(options.batch_tokens)),
        *("--held-out", "0.2", "--no-tensorboard", "--ce-weight", "0", *further),
    )
    return Stage(name=name, module="student_train", arguments=arguments)


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the finished stages."""
    found: dict[str, Any] = {"provenance": provenances(options.scratch), "float": {}, "kinds": {}}
    for seed in options.seeds:
        record = options.scratch / "runs" / f"float-{seed}" / "run.json"
        if record.exists():
            held_out = json.loads(record.read_bytes())["held_out"]
            found["float"][str(seed)] = {when: held_out[when]["kl"] for when in ("before", "after")}
        for kind in KINDS:
            path = options.scratch / "results" / f"{kind}-{seed}.json"
            if path.exists():
                found["kinds"].setdefault(kind, {})[str(seed)] = _figures(json.loads(path.read_bytes()))
    return found


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    aware, after = (model["measures"]["kl"] for model in record["models"])
    return {"while": aware, "after": after, "difference": record["differences"]["kl"], "on": record["on"]}


def text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    rows = [
        (
            f"`{kind}`",
            seed,
            *(_common.shown(each[name]) for name in ("after", "while")),
            _common.shown(each["difference"], sign="+"),
        )
        for kind, seeds in found["kinds"].items()
        for seed, each in seeds.items()
    ]
    plain = [
        (seed, *(_common.shown(each[when]) for when in ("before", "after"))) for seed, each in found["float"].items()
    ]
    return "\n".join(
        (
            "# Training with rounded weights",
            "",
            "Does a student lose less when it is quantised, if its weights are rounded while it trains? The student is",
            f"the teacher of the shards, with all of its layers. {options.steps} steps of {options.batch_tokens:,}",
            f"tokens, peak learning rate {options.learning_rate:g}. Written by",
            "",
            "    python -m benchmarks.quantization --scratch DIR --shards demo/shards/ \\",
            f"        {budget_options(options)}",
            "",
            *(f"- {line}" for line in found["provenance"]),
            "",
            "Held-out KL to the teacher in nats per token, of the copies as they load from their folders; 95 %",
            "intervals over documents. *quantised after*: trained with float weights, then rounded. *rounded while*:",
            "trained with `--quantize`. The difference is paired.",
            "",
            _common.markdown_table(("type", "seed", "quantised after", "rounded while", "difference"), rows),
            "",
            "The float student, before and after training:",
            "",
            _common.markdown_table(("seed", "before", "after"), plain),
        )
    )


if __name__ == "__main__":
    main()

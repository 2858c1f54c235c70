"""Run the unfinished stages of the experiment, and write the page from the finished ones.

    python -m benchmarks.responses --scratch DIR --teacher QWEN_FOLDER --mbpp mbpp.jsonl --corpus FOLDER
    python -m benchmarks.responses --scratch DIR --teacher QWEN_FOLDER --mbpp mbpp.jsonl --corpus FOLDER --page

QWEN_FOLDER is Qwen2.5-Coder-0.5B-Instruct as a transformers folder; the student is SmolLM2-135M-Instruct, which the
development packages hold. Every stage is a public command and runs once; a killed run continues. On two CPU cores the
default sizes take hours: see --steps, --samples, --functions and --limit.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks import _common
from benchmarks._stages import run_stages
from benchmarks.responses import page
from benchmarks.responses.plan import Plan, stages


def main() -> None:
    """Run what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of intermediate results")
    parser.add_argument("--teacher", required=True, help="transformers folder of the teacher")
    parser.add_argument("--student", default="smollm2-135m", help="short name or transformers folder")
    parser.add_argument("--mbpp", type=Path, required=True, help="mbpp.jsonl")
    parser.add_argument("--corpus", required=True, help="folder whose documented functions become prompts")
    for field in fields(Plan):
        if field.name not in ("scratch", "teacher", "student", "mbpp", "corpus", "seeds", "options"):
            kind = {"int": int, "float": float, "str": str}[str(field.type)]
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--jobs", type=int, default=1, help="stages at a time")
    parser.add_argument("--only", nargs="+", default=[], help="run only stages whose name begins so")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--out", type=Path, default=Path("docs/results/responses.md"))
    parser.add_argument("--options", default="", help="further options of every evalkit score, in one string")
    options = vars(parser.parse_args())
    run_only, jobs, only_page = options.pop("only"), options.pop("jobs"), options.pop("page")
    only_list, out = options.pop("list"), options.pop("out")
    options["seeds"] = tuple(int(seed) for seed in options["seeds"].split(","))
    options["options"] = tuple(shlex.split(options["options"]))
    options["student"] = student_folder(options["student"])
    plan = Plan(**options)
    plan.scratch.mkdir(parents=True, exist_ok=True)
    if only_list:
        for stage in stages(plan):
            print(f"{stage.name}: {stage.shown()}")
        return
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan).items()}
    (plan.scratch / "plan.json").write_text(json.dumps(settings, indent=1))
    failed = [] if only_page else run_stages(stages(plan), plan.scratch, jobs=jobs, only=run_only)
    page.write(plan, out)
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


def student_folder(name: str) -> str:
    """Return the folder of a model with a short name; a folder as it is."""
    from teacher_dump.model.teachers import resolve

    return name if Path(name).is_dir() else str(resolve(name).folder)


if __name__ == "__main__":
    main()

"""Run the unfinished stages of the experiment with tools, and write docs/results/tools.md from the finished ones.

    python -m benchmarks.tools --scratch DIR --qwen FOLDER --smollm2 FOLDER
    python -m benchmarks.tools --scratch DIR --qwen FOLDER --limit 32 --only qwen-humaneval
    python -m benchmarks.tools --scratch DIR --qwen FOLDER --smollm2 FOLDER --page

FOLDER is Qwen2.5-Coder-0.5B-Instruct or SmolLM2-135M-Instruct as a transformers folder. Every stage is a public command
or a script of this folder, and runs once. A killed run continues, and a larger --limit reuses the answers of a smaller
one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import _common
from benchmarks._stages import run_stages
from benchmarks.tools import documentation, report
from benchmarks.tools.plan import Plan, stages


def main() -> None:
    """Run what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of intermediate results")
    for name, title in report.TITLES.items():
        parser.add_argument(f"--{name}", default="", metavar="FOLDER", help=f"{title} as a transformers folder")
    parser.add_argument("--data-dir", default="", help="folder of benchmark files (default: download them)")
    parser.add_argument("--limit", type=int, default=0, help="only the first problems of each benchmark (default: all)")
    parser.add_argument("--samples", type=int, default=4, help="samples per problem (default: 4)")
    parser.add_argument("--engine", default="auto", help="engine of the generation")
    parser.add_argument("--batch-size", type=int, default=0, help="answers at a time (default: the engine's)")
    parser.add_argument("--only", nargs="+", default=[], help="run only stages whose name begins so")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    plan = Plan(
        scratch=options.scratch,
        models={name: getattr(options, name) for name in report.TITLES if getattr(options, name)},
        data_dir=options.data_dir,
        limit=options.limit,
        samples=options.samples,
        engine=options.engine,
        batch_size=options.batch_size,
    )
    every_stage = [*stages(plan), *documentation.stages(plan)]
    if options.list:
        for stage in every_stage:
            print(f"{stage.name}: {stage.shown()}")
        return
    failed = [] if options.page else run_stages(every_stage, plan.scratch, jobs=1, only=options.only)
    report.write(plan, options.out)
    documentation.write(plan, options.out)
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()

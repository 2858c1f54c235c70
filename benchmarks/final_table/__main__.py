"""Run the unfinished stages of a recipe, and write its table from the finished ones.

    python -m benchmarks.final_table recipes/qwen-0.5b-smollm2-135m.toml --scratch DIR --set qwen=FOLDER
    python -m benchmarks.final_table recipes/codellama-70b-phi-2.toml --scratch DIR --dry-run

Every stage is a public command and runs once. A killed run continues; `--only` runs some stages first, in any order.
DIR keeps the intermediate results, and belongs to one recipe: other settings need another folder.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks._stages import run_stages
from benchmarks.final_table import page
from benchmarks.final_table.caches import cache_jobs, nearest_job
from benchmarks.final_table.costs import dry_run
from benchmarks.final_table.jobs import Job, Setup
from benchmarks.final_table.reading import RecipeError
from benchmarks.final_table.recipe import Recipe, read_recipe
from benchmarks.final_table.runs import collect, join
from benchmarks.final_table.scores import refinement_jobs, score_jobs, selection_jobs
from benchmarks.final_table.short import write_short
from benchmarks.final_table.students import best_jobs, student_jobs
from teacher_dump.errors import DumpError

FREE = ("title", "rates", "published")
"""Settings of which no stage depends: they may change in a folder that has results."""


def main() -> None:
    """Run what is missing and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("recipe", type=Path, help="a TOML file, such as those in recipes/")
    parser.add_argument("--scratch", type=Path, help="folder of intermediate results; not needed by --page --join")
    parser.add_argument("--set", action="append", default=[], metavar="PLACE=VALUE", help="value of a {place}")
    parser.add_argument("--only", nargs="+", default=[], help="run only stages whose name begins so")
    parser.add_argument("--jobs", type=int, default=1, help="stages at a time")
    parser.add_argument("--dry-run", action="store_true", help="print every command and its cost, and stop")
    parser.add_argument("--summary", action="store_true", help="with --dry-run: only the sums")
    parser.add_argument("--section", type=Path, metavar="PAGE", help="with --dry-run: write to the recipe's section")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page")
    parser.add_argument(
        "--join", nargs="+", type=Path, default=[], metavar="FILE", help="fill cells from figures of other runs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results/final_table.md"), help="the page; a .json file for its figures"
    )
    parser.add_argument("--short", type=Path, metavar="PAGE", help="write the short form to its section of a page, too")
    options = parser.parse_args()
    is_joined_only = options.page and options.join and options.scratch is None
    if options.scratch is None and not is_joined_only:
        parser.error("--scratch is missing; name a folder for intermediate results")
    try:
        places = dict(_place(text) for text in options.set)
        setup = Setup(recipe=read_recipe(options.recipe, places), scratch=options.scratch or Path())
        others = [_read_figures(path) for path in options.join]
        jobs = all_jobs(setup)
        if options.dry_run:
            show(list(dry_run(setup, jobs, summary=options.summary)), options.section, name=options.recipe.stem)
            return
        if not is_joined_only:
            keep_settings(setup)
    except (RecipeError, DumpError) as error:
        sys.exit(f"error: {error}")
    stages = [job.stage for job in jobs]
    failed = [] if options.page else run_stages(stages, setup.scratch, jobs=options.jobs, only=options.only)
    own = [] if is_joined_only else [collect(setup, jobs, recipe=options.recipe.name)]
    found = join([*own, *others]) if others else own[0]
    page.write(setup, found, options.out, command=_shown(options))
    if options.short:
        write_short(setup, found, options.short)
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


def _read_figures(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        if "runs" in found and "rows" in found:
            return found
    except (OSError, ValueError):
        pass
    raise RecipeError(f"--join {path}: has no figures; expected a JSON file that this command wrote")


def _shown(options: argparse.Namespace) -> str:
    """Return the command as a page shows it."""
    folder = "--page" if options.scratch is None else "--scratch DIR"
    others = f" --join {shlex.join(map(str, options.join))}" if options.join else ""
    return f"python -m benchmarks.final_table recipes/{options.recipe.name} {folder}{others}"


def all_jobs(setup: Setup) -> list[Job]:
    """Return all jobs of a recipe, in the order in which they run."""
    parts = (cache_jobs, nearest_job, student_jobs, best_jobs, score_jobs, selection_jobs, refinement_jobs)
    return [job for part in parts for job in part(setup)]


def show(lines: Sequence[str], section: Path | None, *, name: str) -> None:
    """Print lines, or write them between the markers of a recipe in a page, as docs/final_table.md has them."""
    if section is None:
        print("\n".join(lines))
        return
    text = "\n".join(f"    {line}".rstrip() for line in lines)
    _common.replace_section(section, text, begin=f"<!-- {name} -->", end=f"<!-- /{name} -->")


def keep_settings(setup: Setup) -> None:
    """Write the settings to the scratch folder, or compare them with those that it has.

    A setting that the folder does not know, such as one that a later version added, is added.

    Raises:
        RecipeError: The folder has results of other settings.
    """
    path, settings = setup.scratch / "recipe.json", _settings(setup.recipe)
    stored: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    for key in stored:
        if settings.get(key) != stored[key]:
            raise RecipeError(
                f"{setup.scratch}: has results with {key} = {stored[key]!r}, the recipe has {settings.get(key)!r}; "
                "name another --scratch"
            )
    if settings != stored:
        _common.write_json(path, settings)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that stages depend on, by path, as JSON reads them."""
    flat: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{path}.{key}" if path else key, item)
        else:
            flat[path] = value

    add("", {key: value for key, value in asdict(recipe).items() if key not in FREE})
    value: dict[str, Any] = json.loads(json.dumps(flat))
    return value


def _place(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise RecipeError(f"--set {text}: expected PLACE=VALUE, such as qwen=FOLDER")
    return name, value


if __name__ == "__main__":
    main()

"""The stages of the experiment as commands, for each model and benchmark.

- `conversation`, `failure`, `sample`: greedy answers refined, by form of the message. Fewer refinements are in them.
- `first` of a form: the greedy answers of the first form, copied.
- `samples`: several samples per problem, with the same prompt.
- `attempts`, `verdicts` of a form: each attempt by itself, scored.
- `choices`: what each sample does on the visible tests, and which one `majority` chooses among the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._stages import Stage

TASKS = {"humaneval": "humaneval-evalplus-chat-v1", "mbpp+": "mbpp-evalplus-chat-v1"}
"""Protocol of each benchmark: for chat models, with the tests that the prompt shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes and places of one run of the experiment."""

    scratch: Path
    models: dict[str, str]
    """Folder of each model, by name."""
    data_dir: str = ""
    """Folder of benchmark files; "" to download them."""
    limit: int = 0
    """Use only the first problems of each benchmark; 0 for all."""
    refinements: int = 2
    samples: int = 4
    new_tokens: int = 384
    engine: str = "auto"
    batch_size: int = 0
    """Answers at a time; 0 for the engine's."""
    tasks: tuple[str, ...] = field(default=tuple(TASKS))
    protocols: dict[str, str] = field(default_factory=TASKS.copy)
    """Protocol of each benchmark."""
    forms: tuple[str, ...] = ("conversation", "failure", "sample")
    """Forms of refinement. The first one writes the first attempts, which the others copy."""

    def folder(self, model: str, task: str) -> Path:
        """Return the folder of one model and benchmark."""
        return self.scratch / model / task


def stages(plan: Plan) -> list[Stage]:
    """Return all stages of the experiment."""
    return [stage for task in plan.tasks for model in plan.models for stage in _stages(plan, model, task)]


def _stages(plan: Plan, model: str, task: str) -> list[Stage]:
    folder, name = plan.folder(model, task), f"{model}-{task}"
    data = ("--data-dir", plan.data_dir) if plan.data_dir else ()
    limit = ("--limit", str(plan.limit)) if plan.limit else ()
    generation = (
        *("score", plan.models[model], "--tasks", task, "--protocol", plan.protocols[task], "--engine", plan.engine),
        *("--max-new-tokens", str(plan.new_tokens), "--no-html", *data, *limit),
        *(("--batch-size", str(plan.batch_size)) if plan.batch_size else ()),
    )
    sampling = ("--n", str(plan.samples), "--temperature", "0.8", "--top-p", "0.95")
    samples, program_file = str(folder / "samples.json"), str(folder / "samples.samples.jsonl")
    choices = ("--samples", program_file, "--task", task, "--out", str(folder / "choices.json"), *data)
    return [
        *(stage for form in plan.forms for stage in _refinement(plan, folder, name, form=form, generation=generation)),
        Stage(name=f"{name}-samples", module="evalkit", arguments=(*generation, *sampling, "--json", samples)),
        Stage(
            name=f"{name}-choices",
            module="benchmarks.tools.choices",
            arguments=choices,
            needs=(f"{name}-samples",),
        ),
    ]


def _refinement(plan: Plan, folder: Path, name: str, *, form: str, generation: tuple[str, ...]) -> list[Stage]:
    """Return the stages of one form. The first form writes the first attempts, which the others copy."""
    refined, attempts, first = (str(folder / f"{part}.json") for part in (form, f"{form}-attempts", plan.forms[0]))
    program_files = [path.replace(".json", ".samples.jsonl") for path in (refined, attempts)]
    first_answers = [path.replace(".json", ".attempt0.jsonl") for path in (first, refined)]
    refine = ("--refine", str(plan.refinements), "--refine-form", form, "--json", refined)
    task = generation[generation.index("--tasks") + 1]
    data = ("--data-dir", plan.data_dir) if plan.data_dir else ()
    verdicts = ("score", "--samples", program_files[1], "--tasks", task, "--json", attempts, "--no-html", *data)
    stages = [
        Stage(
            name=f"{name}-{form}",
            module="evalkit",
            arguments=(*generation, *refine),
            needs=(f"{name}-{form}-first",) if form != plan.forms[0] else (),
        ),
        Stage(
            name=f"{name}-{form}-attempts",
            module="benchmarks.tools.attempts",
            arguments=("--samples", program_files[0], "--out", program_files[1]),
            needs=(f"{name}-{form}",),
        ),
        Stage(name=f"{name}-{form}-verdicts", module="evalkit", arguments=verdicts, needs=(f"{name}-{form}-attempts",)),
    ]
    if form != plan.forms[0]:
        copy = Stage(
            name=f"{name}-{form}-first",
            module="benchmarks.tools.first_answers",
            arguments=("--source", first_answers[0], "--out", first_answers[1]),
            needs=(f"{name}-{plan.forms[0]}",),
        )
        stages.insert(0, copy)
    return stages

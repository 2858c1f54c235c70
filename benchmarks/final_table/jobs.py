"""A job: a stage of the experiment, and how much work it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks._commands import TrainingBudget
from benchmarks._stages import Stage
from benchmarks.final_table.recipe import Recipe, RecipeBenchmark

PROBLEMS = {"humaneval": 164, "mbpp": 500, "mbpp:train": 374, "mbpp:validation": 90}
"""Problems of each benchmark."""
PROMPT_TOKENS = 200
"""Tokens of a prompt with its chat template: an assumption, as in `teacher-dump --plan`."""
TEACHER, STUDENT, SANDBOX = "teacher", "student", "sandbox"
"""Who works: a model, or the sandbox."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Amount of one kind of work in a stage. Amounts are upper bounds: answers often end before their limit."""

    kind: str
    """`write` (tokens generated), `record`, `train`, `compare` (tokens read) or `execute` (programs)."""
    who: str
    """`teacher`, `student` or `sandbox`."""
    amount: int
    num_bytes: int = 0
    """Bytes that it leaves on disk, where they count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A stage and its work."""

    stage: Stage
    works: tuple[Work, ...] = ()
    """None for stages that take seconds."""

    @classmethod
    def of(cls, name: str, module: str, arguments: tuple[str, ...], *works: Work, needs: tuple[str, ...] = ()) -> Job:
        """Return the job of a command."""
        return cls(stage=Stage(name=name, module=module, arguments=arguments, needs=needs), works=works)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """A recipe and its folder of intermediate results, with the names that all stages share."""

    recipe: Recipe
    scratch: Path

    def path(self, *parts: str) -> str:
        """Return a path in the scratch folder."""
        return str(self.scratch.joinpath(*parts))

    def budget(self, steps: int) -> TrainingBudget:
        """Return what students that take so many steps have in common."""
        given = self.recipe.budgets
        return TrainingBudget(
            steps=steps,
            batch_tokens=given.batch_tokens,
            micro_tokens=given.micro_tokens,
            learning_rate=given.learning_rate,
        )

    def has(self, *arms: str) -> bool:
        """Return whether the recipe has one of the arms."""
        return bool(set(arms) & set(self.recipe.arms))

    def runs(self, arm: str) -> list[str]:
        """Return the names of the students of an arm, one for each seed."""
        return [f"{arm}-{seed}" for seed in self.recipe.seeds]

    @property
    def candidates(self) -> list[str]:
        """Arms that learn from the teacher, of which the best one is chosen; none if nothing is done with it."""
        selection = self.recipe.selection
        is_used = bool(selection.selectors or selection.refinements)
        return [arm for arm in self.recipe.arms if arm != "self"] if is_used else []

    @property
    def best(self) -> list[str]:
        """Names of the best students; the untouched one where none is chosen."""
        return self.runs("best") if self.candidates else ["base"]

    def checkpoint(self, name: str) -> str:
        """Return what --model or CHECKPOINT takes for a model of the table."""
        given = self.recipe.student
        known = {TEACHER: self.recipe.teacher.model} | ({} if given.kept_layers else {"base": given.model})
        return known.get(name, self.path("runs", name))

    def needs_of(self, name: str) -> tuple[str, ...]:
        """Return the stage that makes a model."""
        is_given = name == TEACHER or (name == "base" and not self.recipe.student.kept_layers)
        return () if is_given else ("best",) if name.startswith("best-") else (name,)

    def problems(self, task: str, limit: int) -> int:
        """Return the number of problems of a benchmark that are used."""
        return min(limit or PROBLEMS[task], PROBLEMS[task])

    @property
    def data_dir(self) -> tuple[str, ...]:
        """The option --data-dir."""
        folder = self.recipe.data.benchmark_folder
        return ("--data-dir", folder) if folder else ()

    @property
    def engine(self) -> tuple[str, ...]:
        """Options of evalkit's engine."""
        size = ("--batch-size", str(self.recipe.batch_size)) if self.recipe.batch_size else ()
        return ("--engine", self.recipe.engine, *size)

    def samples_of(self, name: str, task: str) -> str:
        """Return the path of the samples of a model."""
        return self.path("scores", f"{name}-{task}-samples.samples.jsonl")

    def sampled(self, benchmark: RecipeBenchmark, task: str) -> int:
        """Return the number of problems with samples."""
        return self.problems(task, benchmark.sampled_problems)


def limit_option(limit: int) -> tuple[str, ...]:
    """Return the option --limit; nothing for all problems."""
    return ("--limit", str(limit)) if limit else ()


def who(name: str) -> str:
    """Return who works where a model of the table answers."""
    return TEACHER if name == TEACHER else STUDENT

"""Stages that train the students, compare them with the teacher on held-out rows, and choose the best one."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import _commands
from benchmarks.final_table.caches import cache_names, cache_tokens, decontaminate, num_prompts, prompts, recorded
from benchmarks.final_table.jobs import SANDBOX, STUDENT, TEACHER, Job, Setup, Work

CACHES = {
    "sft-source": "source",
    "kd-source": "source",
    "sft": "responses",
    "kd": "responses",
    "kd-passed": "passed",
    "self": "self",
}
"""Cache that an arm learns from. The arm `on-policy` has one for each seed."""
SFT = ("sft-source", "sft", "self")
"""Arms that learn from text alone."""
HELD_OUT_TOKENS = 1000
"""The stages `held-out` compare the finished students, so a run measures little itself."""
COMPARED = ("source", "responses")
"""Caches on whose held-out rows all students are compared."""


def student_jobs(setup: Setup) -> list[Job]:
    """Return the stages that train and compare all students."""
    trained = [job for seed in setup.recipe.seeds for arm in setup.recipe.arms for job in _arm(setup, arm, seed)]
    names = ["base", *(name for arm in setup.recipe.arms for name in setup.runs(arm))]
    return [*_shortened(setup), *trained, *(job for name in names for job in _compared(setup, name))]


def _shortened(setup: Setup) -> list[Job]:
    """Return the stage that makes a student of some layers of a model: one step that leaves the weights as they are."""
    student = setup.recipe.student
    if not student.kept_layers:
        return []
    budget = replace(setup.budget(1), learning_rate=0.0)
    arguments = _commands.training(
        shards=setup.path("source"), student=student.model, out=setup.checkpoint("base"), seed=0, budget=budget
    )
    size = ("--student-layers", str(student.kept_layers), "--held-out-tokens", str(HELD_OUT_TOKENS))
    work = Work(kind="train", who=STUDENT, amount=budget.batch_tokens)
    return [Job.of("base", "student_train", (*arguments, *size), work, needs=("record-source",))]


def _arm(setup: Setup, arm: str, seed: int) -> list[Job]:
    if arm == "on-policy":
        return _on_policy(setup, seed)
    return [_trained(setup, arm, seed, cache=CACHES[arm], needs=f"record-{CACHES[arm]}")]


def _trained(setup: Setup, arm: str, seed: int, *, cache: str, needs: str, steps: int = 0, student: str = "") -> Job:
    """Return the stage that trains one student.

    Args:
        setup: The recipe.
        arm: Name of the run without its seed.
        seed: Seed of the run.
        cache: Folder of the cache.
        needs: Stage that makes the cache.
        steps: Steps; 0 for all that the budget has for the cache.
        student: Checkpoint to begin with; "" for the untouched student.
    """
    given = setup.recipe.budgets
    budget = setup.budget(steps or (given.steps if cache == "source" else given.response_steps))
    arguments = _commands.training(
        shards=setup.path(cache),
        student=student or setup.checkpoint("base"),
        out=setup.path("runs", f"{arm}-{seed}"),
        seed=seed,
        budget=budget,
    )
    objective = ("--objective", "sft") if arm in SFT else ()
    # The few passing samples of a small student may hold out no row. Held-out prompts stay untrained all the same.
    measured = ("--held-out-tokens", str(0 if cache == "self" else HELD_OUT_TOKENS))
    work = Work(kind="train", who=STUDENT, amount=budget.steps * budget.batch_tokens)
    needed = (needs, *setup.needs_of("base"))
    return Job.of(f"{arm}-{seed}", "student_train", (*arguments, *measured, *objective), work, needs=needed)


def _on_policy(setup: Setup, seed: int) -> list[Job]:
    """Return half of the steps as `kd`, a round in which this student writes, and the rest of the steps on that."""
    recipe, steps, name = setup.recipe, setup.recipe.budgets.response_steps, f"round2-{seed}"
    half = steps // 2
    samples = max(1, recipe.budgets.samples // 2)
    first = setup.path("runs", f"kd-half-{seed}")
    writing = _commands.writing(
        model=recipe.teacher.model,
        writer=first,
        prompts=prompts(setup),
        out=setup.path(name),
        samples=samples,
        new_tokens=recipe.budgets.new_tokens,
        engine=recipe.engine,
    )
    responses = num_prompts(setup) * samples
    works = (
        Work(kind="write", who=STUDENT, amount=responses * recipe.budgets.new_tokens),
        recorded(setup, responses, who=TEACHER),
    )
    few = ("--max-documents", str(recipe.budgets.prompts), *decontaminate(setup))
    return [
        _trained(setup, "kd-half", seed, cache="responses", needs="record-responses", steps=half),
        Job.of(name, "teacher_dump", (*writing, *few), *works, needs=(f"kd-half-{seed}",)),
        _trained(setup, "on-policy", seed, cache=name, needs=name, steps=steps - half, student=first),
    ]


def _compared(setup: Setup, name: str) -> list[Job]:
    """Return the stages that compare a student with the teacher on held-out rows of the caches."""
    caches, most = cache_names(setup), setup.recipe.budgets.held_out_tokens
    jobs = []
    for cache in COMPARED:
        if cache not in caches:
            continue
        comparing = _commands.comparing(
            model=setup.checkpoint(name),
            shards=setup.path(cache),
            result=setup.path("held_out", f"{name}-{cache}.json"),
        )
        work = Work(kind="compare", who=STUDENT, amount=min(most, cache_tokens(setup, cache) // 10))
        arguments, needs = (*comparing, "--held-out-tokens", str(most)), (*setup.needs_of(name), caches[cache])
        jobs.append(Job.of(f"{name}-held-out-{cache}", "student_train", arguments, work, needs=needs))
    return jobs


def best_jobs(setup: Setup) -> list[Job]:
    """Return the stages that choose the best arm, by problems that are neither trained on nor in the table."""
    if not setup.candidates:
        return []
    selection, protocol = setup.recipe.selection, setup.recipe.benchmarks["mbpp"].sampled
    runs = [name for arm in setup.candidates for name in setup.runs(arm)]
    problems = setup.problems("mbpp:validation", selection.validation_problems)
    jobs = []
    for name in runs:
        scoring = _commands.scoring(
            model=setup.checkpoint(name),
            task="mbpp:validation",
            protocol=protocol,
            samples=selection.validation_samples,
            new_tokens=selection.new_tokens,
            data_dir=setup.recipe.data.benchmark_folder,
            result=setup.path("scores", f"{name}-validation.json"),
            limit=selection.validation_problems,
        )
        works = answered(STUDENT, problems * selection.validation_samples, selection.new_tokens)
        jobs.append(Job.of(f"{name}-validation", "evalkit", (*scoring, *setup.engine), *works, needs=(name,)))
    compared = [cache for cache in COMPARED if cache in cache_names(setup)]
    arguments = (
        *("--scratch", str(setup.scratch), "--seeds", ",".join(map(str, setup.recipe.seeds))),
        *("--tasks", ",".join(setup.recipe.benchmarks), "--arms", ",".join(setup.candidates)),
        *("--cache", compared[-1]),
    )
    needs = (*(f"{name}-validation" for name in runs), *(f"{name}-held-out-{compared[-1]}" for name in runs))
    return [*jobs, Job.of("best", "benchmarks.final_table.best", arguments, needs=needs)]


def answered(who: str, answers: int, new_tokens: int) -> tuple[Work, Work]:
    """Return the work of writing and executing so many answers."""
    return (
        Work(kind="write", who=who, amount=answers * new_tokens),
        Work(kind="execute", who=SANDBOX, amount=answers),
    )

"""Stages that score all models, and that choose among identical samples or refine an answer."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import _commands
from benchmarks.final_table.jobs import SANDBOX, STUDENT, TEACHER, Job, Setup, Work, limit_option, who
from benchmarks.final_table.students import answered
from benchmarks.tools import plan as refinement

DEVELOPMENT = ("mbpp:train", "mbpp:validation")
"""Tasks that the verifier learns from, and that choose it."""


def score_jobs(setup: Setup) -> list[Job]:
    """Return the stages that score every model: greedy answers first, then samples."""
    names = ["base", *(name for arm in setup.recipe.arms for name in setup.runs(arm)), TEACHER]
    tasks = setup.recipe.benchmarks
    greedy = [job for name in names for task in tasks for job in _greedy(setup, name, task)]
    sampled = [_sampled(setup, name, task) for name in names for task in tasks]
    return [*greedy, *(sampled if setup.recipe.selection.samples else [])]


def _greedy(setup: Setup, name: str, task: str) -> list[Job]:
    benchmark, new_tokens = setup.recipe.benchmarks[task], setup.recipe.selection.new_tokens
    answers = setup.problems(task, benchmark.problems)
    scoring = _commands.scoring(
        model=setup.checkpoint(name),
        task=task,
        protocol=benchmark.greedy,
        samples=1,
        new_tokens=new_tokens,
        data_dir=setup.recipe.data.benchmark_folder,
        result=setup.path("scores", f"{name}-{task}-greedy.json"),
        limit=benchmark.problems,
    )
    works = answered(who(name), answers, new_tokens)
    stage = f"{name}-{task}-greedy"
    jobs = [Job.of(stage, "evalkit", (*scoring, *setup.engine), *works, needs=setup.needs_of(name))]
    if benchmark.plus:
        judging = _commands.judging(
            responses=setup.path("scores", f"{name}-{task}-greedy.samples.jsonl"),
            task=benchmark.plus,
            data_dir=setup.recipe.data.benchmark_folder,
            result=setup.path("scores", f"{name}-{benchmark.plus}-greedy.json"),
        )
        work = Work(kind="execute", who=SANDBOX, amount=answers)
        jobs.append(Job.of(f"{name}-{benchmark.plus}-greedy", "evalkit", judging, work, needs=(stage,)))
    return jobs


def _sampled(setup: Setup, name: str, task: str) -> Job:
    benchmark, selection = setup.recipe.benchmarks[task], setup.recipe.selection
    scoring = _commands.scoring(
        model=setup.checkpoint(name),
        task=task,
        protocol=benchmark.sampled,
        samples=selection.samples,
        new_tokens=selection.new_tokens,
        data_dir=setup.recipe.data.benchmark_folder,
        result=setup.path("scores", f"{name}-{task}-samples.json"),
        limit=benchmark.sampled_problems,
    )
    works = answered(who(name), setup.sampled(benchmark, task) * selection.samples, selection.new_tokens)
    arguments = (*scoring, *setup.engine)
    return Job.of(f"{name}-{task}-samples", "evalkit", arguments, *works, needs=setup.needs_of(name))


def selection_jobs(setup: Setup) -> list[Job]:
    """Return the stages that choose among the samples of the best student and of the teacher."""
    if not setup.recipe.selection.selectors:
        return []
    names = [*setup.best, TEACHER]
    verifier = _verifier(setup) if "verifier" in setup.recipe.selection.selectors else []
    pairs = [(name, task) for name in names for task in setup.recipe.benchmarks]
    return [*verifier, *(job for name, task in pairs for job in _chosen(setup, name, task))]


def _chosen(setup: Setup, name: str, task: str) -> list[Job]:
    """Return the stages that write tests for one benchmark and choose among the samples of one model."""
    benchmark, selection = setup.recipe.benchmarks[task], setup.recipe.selection
    problems, limit = setup.sampled(benchmark, task), limit_option(benchmark.sampled_problems)
    tests = setup.path("tests", f"{name}-{task}.jsonl")
    methods = ("random", *(method for method in selection.selectors if method != "verifier"), "oracle")
    has_verifier = "verifier" in selection.selectors
    arguments = (
        *("rerank", setup.samples_of(name, task), "--tests", tests, "--tasks", task, "--methods", ",".join(methods)),
        *(("--verifier", setup.path("verifier")) if has_verifier else ()),
        *("--json", setup.path("choices", f"{name}-{task}.json"), *setup.data_dir, *limit),
    )
    is_best = name.startswith("best-")
    seed = name.removeprefix("best-")
    samples = [f"{arm}-{seed}-{task}-samples" for arm in setup.candidates] if is_best else [f"{name}-{task}-samples"]
    needs = (
        f"{name}-{task}-tests",
        *samples,
        *(("best",) if is_best else ()),
        *(("verifier",) if has_verifier else ()),
    )
    works = Work(kind="execute", who=SANDBOX, amount=problems * selection.samples)
    return [
        _tests(setup, name, task, protocol=benchmark.tests, texts=selection.texts, out=tests, limit=limit),
        Job.of(f"{name}-{task}-choices", "evalkit", arguments, works, needs=needs),
    ]


def _tests(setup: Setup, name: str, task: str, *, protocol: str, texts: int, out: str, limit: tuple[str, ...]) -> Job:
    problems, new_tokens = setup.problems(task, int(limit[1]) if limit else 0), setup.recipe.selection.test_tokens
    arguments = (
        *("write-tests", setup.checkpoint(name), "--tasks", task, "--protocol", protocol, "--n", str(texts)),
        *(*_commands.SAMPLING, "--max-new-tokens", str(new_tokens), "--out", out),
        *(*setup.data_dir, *limit, *setup.engine),
    )
    work = Work(kind="write", who=who(name), amount=problems * texts * new_tokens)
    return Job.of(f"{name}-{task}-tests", "evalkit", arguments, work, needs=setup.needs_of(name))


def _verifier(setup: Setup) -> list[Job]:
    """Return the stages of the verifier. It learns from the teacher, because the students were trained on its tasks."""
    selection, benchmark = setup.recipe.selection, setup.recipe.benchmarks["mbpp"]
    limit = limit_option(selection.verifier_problems)
    jobs, files, needs = [], [], []
    for task in DEVELOPMENT:
        stage = f"verifier-{task.partition(':')[2]}"
        samples, tests = setup.path("verifying", f"{stage}.json"), setup.path("verifying", f"{stage}-tests.jsonl")
        answers = setup.problems(task, selection.verifier_problems) * selection.verifier_samples
        scoring = _commands.scoring(
            model=setup.recipe.teacher.model,
            task=task,
            protocol=benchmark.sampled,
            samples=selection.verifier_samples,
            new_tokens=selection.new_tokens,
            data_dir=setup.recipe.data.benchmark_folder,
            result=samples,
            limit=selection.verifier_problems,
        )
        works = answered(TEACHER, answers, selection.new_tokens)
        jobs.append(Job.of(f"{stage}-samples", "evalkit", (*scoring, *setup.engine), *works))
        texts = selection.verifier_samples
        jobs.append(_tests(setup, TEACHER, task, protocol=benchmark.tests, texts=texts, out=tests, limit=limit))
        files += [(samples.replace(".json", ".samples.jsonl"), tests)]
        needs += [job.stage.name for job in jobs[-2:]]
    arguments = (
        *("train-verifier", *(samples for samples, _ in files)),
        *(text for _, tests in files for text in ("--tests", tests)),
        *("--tasks", DEVELOPMENT[0], "--out", setup.path("verifier"), *setup.data_dir),
    )
    programs = sum(work.amount for job in jobs for work in job.works if work.kind == "execute")
    work = Work(kind="execute", who=SANDBOX, amount=programs)
    return [*jobs, Job.of("verifier", "evalkit", arguments, work, needs=tuple(needs))]


def refinement_plan(setup: Setup, task: str) -> refinement.Plan:
    """Return the plan of refinement for one benchmark: the experiment of `benchmarks.tools` with the best students."""
    benchmark, selection = setup.recipe.benchmarks[task], setup.recipe.selection
    return refinement.Plan(
        scratch=setup.scratch / "refinement",
        models={f"refine-{name}": setup.checkpoint(name) for name in setup.best},
        data_dir=setup.recipe.data.benchmark_folder,
        limit=benchmark.sampled_problems,
        refinements=selection.refinements,
        samples=selection.refinement_samples,
        new_tokens=selection.new_tokens,
        engine=setup.recipe.engine,
        batch_size=setup.recipe.batch_size,
        tasks=(task,),
        protocols={task: benchmark.greedy},
        forms=(selection.refinement_form,),
    )


def refinement_jobs(setup: Setup) -> list[Job]:
    """Return the stages that refine the greedy answers of the best students, and that draw samples to compare with."""
    selection = setup.recipe.selection
    if not selection.refinements:
        return []
    jobs = []
    for task, benchmark in setup.recipe.benchmarks.items():
        problems = setup.sampled(benchmark, task)
        form = selection.refinement_form
        answers = {form: problems * (1 + selection.refinements), "samples": problems * selection.refinement_samples}
        for stage in refinement.stages(refinement_plan(setup, task)):
            needs = (*stage.needs, *(("best",) if setup.candidates else ()))
            last = stage.name.rpartition("-")[2]
            works = answered(STUDENT, answers[last], selection.new_tokens) if last in answers else ()
            jobs.append(Job(stage=replace(stage, needs=needs), works=works))
    return jobs

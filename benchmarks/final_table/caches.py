"""Stages that write responses, judge them and record caches, and the one that compares all caches with the problems."""

from __future__ import annotations

from benchmarks import _commands
from benchmarks.final_table.jobs import PROBLEMS, PROMPT_TOKENS, SANDBOX, STUDENT, TEACHER, Job, Setup, Work
from teacher_dump.cost import BYTES_PER_TOKEN

TRAIN = "mbpp:train"
FUNCTION_RESPONSES = 2
"""Responses to each prompt from a function."""
_WRITERS = {TEACHER: TEACHER, STUDENT: "base"}
"""Model of the table that writes, by who works."""


def cache_jobs(setup: Setup) -> list[Job]:
    """Return the stages of all caches that the recipe's arms read, but those of the on-policy rounds."""
    jobs = [_source(setup)] if setup.has("sft-source", "kd-source") else []
    if setup.has("sft", "kd", "kd-passed", "on-policy"):
        jobs += _written(setup, "mbpp", who=TEACHER, samples=setup.recipe.budgets.samples)
    if setup.has("sft", "kd", "on-policy"):
        jobs += _responses(setup)
    if setup.has("kd-passed"):
        jobs.append(_passed(setup, "mbpp", cache="passed", who=TEACHER, samples=setup.recipe.budgets.samples))
    if setup.has("self"):
        samples = setup.recipe.budgets.self_samples
        jobs += _written(setup, "self-written", who=STUDENT, samples=samples)
        jobs.append(_passed(setup, "self-written", cache="self", who=STUDENT, samples=samples))
    return jobs


def cache_names(setup: Setup) -> dict[str, str]:
    """Return the stage that makes each cache of the recipe, by the cache's folder."""
    arms = {"source": ("sft-source", "kd-source"), "responses": ("sft", "kd", "on-policy"), "passed": ("kd-passed",)}
    names = {cache: f"record-{cache}" for cache, users in (arms | {"self": ("self",)}).items() if setup.has(*users)}
    rounds = [f"round2-{seed}" for seed in setup.recipe.seeds] if setup.has("on-policy") else []
    return names | {name: name for name in rounds}


def prompts(setup: Setup) -> str:
    """Return the value of --prompts for MBPP's training part."""
    return f"{TRAIN}={setup.recipe.data.mbpp}" if setup.recipe.data.mbpp else TRAIN


def num_prompts(setup: Setup) -> int:
    """Return the number of these prompts."""
    return min(setup.recipe.budgets.prompts, PROBLEMS[TRAIN])


def decontaminate(setup: Setup) -> tuple[str, str]:
    """Return the option that keeps the benchmarks out of every cache."""
    return ("--decontaminate", setup.recipe.data.decontaminate)


def cache_tokens(setup: Setup, cache: str) -> int:
    """Return the most tokens of the cache of source text or of responses."""
    budgets = setup.recipe.budgets
    if cache == "source":
        return budgets.source_tokens
    responses = num_prompts(setup) * budgets.samples + budgets.num_functions * FUNCTION_RESPONSES
    return responses * (PROMPT_TOKENS + budgets.new_tokens)


def recorded(setup: Setup, responses: int, *, who: str) -> Work:
    """Return the work of recording so many responses."""
    new_tokens = setup.recipe.budgets.new_tokens
    return Work(
        kind="record",
        who=who,
        amount=responses * (PROMPT_TOKENS + new_tokens),
        num_bytes=round(responses * new_tokens * BYTES_PER_TOKEN),
    )


def _source(setup: Setup) -> Job:
    recipe = setup.recipe
    size = ("--max-tokens", str(recipe.budgets.source_tokens), "--window-tokens", str(recipe.budgets.window_tokens))
    arguments = ("--model", recipe.teacher.model, "--engine", recipe.engine, "--data", recipe.data.source, *size)
    tokens = recipe.budgets.source_tokens
    work = Work(kind="record", who=TEACHER, amount=tokens, num_bytes=round(tokens * BYTES_PER_TOKEN))
    out = ("--out", setup.path("source"))
    return Job.of("record-source", "teacher_dump", (*arguments, *decontaminate(setup), *out), work)


def _written(setup: Setup, folder: str, *, who: str, samples: int) -> list[Job]:
    """Return the stages that let a model answer MBPP's training part, and judge the answers."""
    budgets, data = setup.recipe.budgets, setup.recipe.data
    responses = num_prompts(setup) * samples
    writing = _commands.writing(
        model=setup.checkpoint(_WRITERS[who]),
        prompts=prompts(setup),
        out=setup.path(folder),
        samples=samples,
        new_tokens=budgets.new_tokens,
        engine=setup.recipe.engine,
    )
    few = ("--max-documents", str(budgets.prompts), "--responses-only")
    judging = _commands.judging(
        responses=setup.path(folder, "responses.jsonl"),
        task=TRAIN,
        data_dir=data.benchmark_folder,
        result=setup.path(f"{folder}-verdicts.json"),
    )
    write, judge = f"write-{folder}", f"verdicts-{folder}"
    written = Work(kind="write", who=who, amount=responses * budgets.new_tokens)
    needs = setup.needs_of(_WRITERS[who])
    return [
        Job.of(write, "teacher_dump", (*writing, *few, *decontaminate(setup)), written, needs=needs),
        Job.of(judge, "evalkit", judging, Work(kind="execute", who=SANDBOX, amount=responses), needs=(write,)),
    ]


def _responses(setup: Setup) -> list[Job]:
    """Return the stages that record the teacher's responses, with those to functions if the recipe has some."""
    recipe = setup.recipe
    jobs, needs = [], ["write-mbpp"]
    data, responses = setup.path("mbpp", "responses.jsonl"), num_prompts(setup) * recipe.budgets.samples
    if recipe.data.functions:
        count = recipe.budgets.num_functions * FUNCTION_RESPONSES
        responses += count
        jobs += _functions(setup, Work(kind="write", who=TEACHER, amount=count * recipe.budgets.new_tokens))
        data, needs = setup.path("all.jsonl"), ["join"]
    recording = _commands.recording(
        model=recipe.teacher.model, data=data, out=setup.path("responses"), engine=recipe.engine
    )
    work = recorded(setup, responses, who=TEACHER)
    record = Job.of("record-responses", "teacher_dump", (*recording, *decontaminate(setup)), work, needs=tuple(needs))
    return [*jobs, record]


def _functions(setup: Setup, work: Work) -> list[Job]:
    recipe = setup.recipe
    writing = _commands.writing(
        model=recipe.teacher.model,
        prompts=f"signatures:{recipe.data.functions}",
        out=setup.path("functions"),
        samples=FUNCTION_RESPONSES,
        new_tokens=recipe.budgets.new_tokens,
        engine=recipe.engine,
    )
    few = ("--max-documents", str(recipe.budgets.num_functions), "--responses-only")
    files = tuple(setup.path(folder, "responses.jsonl") for folder in ("mbpp", "functions"))
    return [
        Job.of("write-functions", "teacher_dump", (*writing, *few, *decontaminate(setup)), work),
        Job.of(
            "join",
            "benchmarks.join_responses",
            (*files, setup.path("all.jsonl")),
            needs=("write-mbpp", "write-functions"),
        ),
    ]


def _passed(setup: Setup, folder: str, *, cache: str, who: str, samples: int) -> Job:
    """Return the stage that records those responses in a folder which passed their tests."""
    model = setup.checkpoint(_WRITERS[who])
    recording = _commands.recording(
        model=model,
        data=setup.path(folder, "responses.jsonl"),
        verdicts=setup.path(f"{folder}-verdicts.json"),
        out=setup.path(cache),
        engine=setup.recipe.engine,
    )
    work = recorded(setup, num_prompts(setup) * samples, who=who)
    arguments = (*recording, *decontaminate(setup))
    return Job.of(f"record-{cache}", "teacher_dump", arguments, work, needs=(f"verdicts-{folder}",))


def nearest_job(setup: Setup) -> list[Job]:
    """Return the stage that measures how near the rows of the caches are to the problems of the benchmarks."""
    caches = cache_names(setup)
    if not caches:
        return []
    arguments = (
        *decontaminate(setup),
        *("--out", setup.path("nearest.json")),
        *(setup.path(cache) for cache in caches),
    )
    return [Job.of("nearest", "benchmarks.final_table.nearest", arguments, needs=tuple(caches.values()))]

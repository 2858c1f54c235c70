"""What the stages of a recipe will cost: seconds or GPU-hours, tokens and bytes, before anything runs.

A rate comes from the marks of finished stages that did the same kind of work with the same model; else, for a machine
with GPUs, from the arithmetic of `teacher-dump --plan`; else from the recipe's [rates].
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._stages import Stage, is_done
from benchmarks.final_table.jobs import PROMPT_TOKENS, TEACHER, Job, Setup, Work
from benchmarks.final_table.reading import RecipeError
from benchmarks.final_table.recipe import RecipeModel
from teacher_dump.config import DumpConfig
from teacher_dump.cost import flop_per_token, parameters_and_shape
from teacher_dump.gpu_cost import GPUS as GPU_SPECS
from teacher_dump.gpu_cost import PREFILL_SHARES, gpu_cost, parse_machine
from teacher_dump.model.registry import ModelShape
from teacher_dump.writing.cost import decoding_cost

TRAINING_PASSES = 3
"""FLOP of a training step over those of its forward pass: the backward pass takes twice as many."""
UNITS = {"write": "tokens", "record": "tokens", "train": "tokens", "compare": "tokens", "execute": "programs"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Speed of one kind of work."""

    per_second: float
    gpus: int
    """GPUs that it occupies."""
    how: str
    """Where the rate comes from."""
    whole_stage: bool = False
    """It was measured over whole stages, so their smaller works are in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one work of a job costs."""

    work: Work
    seconds: float
    gpu_hours: float = 0.0


class CostModel:
    """Rates of one recipe, and the costs that follow.

    Args:
        setup: The recipe and its scratch folder, whose marks are read.
        jobs: All jobs.

    Raises:
        RecipeError: A rate or the shape of a model is missing.
    """

    def __init__(self, setup: Setup, jobs: Sequence[Job]) -> None:
        self.setup = setup
        self.done = {job.stage.name: finished(job.stage, setup.scratch) for job in jobs}
        self.measured = _measured(jobs, self.done)
        self.rates: dict[tuple[str, str], Rate] = {}

    def rate(self, work: Work) -> Rate:
        """Return the rate of a kind of work."""
        key = (work.kind, work.who)
        if key not in self.rates:
            self.rates[key] = self.measured.get(key) or self._assumed(work)
        return self.rates[key]

    def costs(self, job: Job) -> list[Cost]:
        """Return the costs of a job's works: what they took, or what they will take."""
        seconds = self.done[job.stage.name]
        if seconds is not None:
            return [Cost(work=work, seconds=0.0 if number else seconds) for number, work in enumerate(job.works)]
        found: list[Cost] = []
        for work in job.works:
            rate = self.rate(work)
            needed = work.amount / rate.per_second
            if found and self.rate(job.works[0]).whole_stage:
                needed = 0.0
            found.append(Cost(work=work, seconds=needed, gpu_hours=needed * rate.gpus / 3600))
        return found

    def _assumed(self, work: Work) -> Rate:
        rates, name = self.setup.recipe.rates, f"{work.kind} {work.who}"
        if work.kind == "execute":
            if not rates.programs_per_s:
                raise RecipeError("rates.programs_per_s: is missing, and no finished stage shows it")
            return Rate(per_second=rates.programs_per_s, gpus=0, how=f"recipe: {rates.source}")
        if rates.machine:
            return _on_gpus(self.setup, work)
        per_second = rates.tokens_per_s.get(name, rates.tokens_per_s.get(work.kind))
        if not per_second:
            raise RecipeError(
                f"rates.tokens_per_s: has neither {name!r} nor {work.kind!r}, and no finished stage shows it"
            )
        return Rate(per_second=per_second, gpus=0, how=f"recipe: {rates.source}")


def finished(stage: Stage, scratch: Path) -> float | None:
    """Return the seconds that a finished stage took, None for one that is not finished."""
    if not is_done(stage, scratch):
        return None
    return float(json.loads((scratch / "marks" / f"{stage.name}.json").read_bytes())["seconds"])


def _measured(jobs: Sequence[Job], done: dict[str, float | None]) -> dict[tuple[str, str], Rate]:
    """Return the rates of finished stages. Each counts for its first, largest work."""
    amounts: dict[tuple[str, str], list[tuple[int, float, str]]] = defaultdict(list)
    for job in jobs:
        seconds = done[job.stage.name]
        if seconds and job.works:
            first = job.works[0]
            amounts[first.kind, first.who].append((first.amount, seconds, job.stage.name))
    rates = {}
    for key, stages in amounts.items():
        per_second = sum(amount for amount, _, _ in stages) / sum(seconds for _, seconds, _ in stages)
        names = ", ".join(name for _, _, name in stages[:3]) + (", ..." if len(stages) > 3 else "")
        rates[key] = Rate(per_second=per_second, gpus=0, how=f"measured here: {names}", whole_stage=True)
    return rates


def _on_gpus(setup: Setup, work: Work) -> Rate:
    """Return the rate of a model's work on the recipe's machine, by arithmetic."""
    recipe = setup.recipe
    model = recipe.teacher if work.who == TEACHER else recipe.student
    parameters, shape = model_shape(model, work.who)
    config = DumpConfig(model=model.model, out=setup.scratch, data=recipe.data.source)
    flop, flop_how = flop_per_token(parameters, shape, recipe.budgets.window_tokens)
    machine = recipe.rates.machine
    if work.kind == "train":
        gpus, name = parse_machine(machine)
        share, peak = recipe.rates.training_share, GPU_SPECS[name].flops
        rate = gpus * peak * share / (TRAINING_PASSES * flop)
        how = (
            f"{flop_how}; {TRAINING_PASSES} times that in training; {share:.0%} of {peak / 1e12:,.0f} TFLOP/s on "
            f"{gpus} GPUs (assumed) = {rate:,.0f} tokens/s"
        )
        return Rate(per_second=rate, gpus=gpus, how=how)
    if work.kind == "write":
        length = PROMPT_TOKENS + recipe.selection.new_tokens / 2
        facts, steps = decoding_cost(config, machine, parameters, shape, None, mean_length=length)
        placed, _ = gpu_cost(config, machine, parameters=parameters, shape=shape, flop_per_token=flop, tokens=None)
        how = steps[0].removeprefix("rate: ")
    else:
        placed, steps = gpu_cost(config, machine, parameters=parameters, shape=shape, flop_per_token=flop, tokens=None)
        facts = placed
        expected = f"rate at {PREFILL_SHARES[1]:.0%}"
        how = f"{flop_how}; {next(step for step in steps if step.startswith(expected)).removeprefix('rate ')}"
    used = placed["workers"] * placed["gpus_per_worker"]
    return Rate(per_second=facts["tokens_per_s"], gpus=used, how=how)


def model_shape(model: RecipeModel, role: str) -> tuple[int, ModelShape]:
    """Return parameters and shape of a model: the recipe's, or those of its short name or folder.

    Raises:
        RecipeError: Neither is known.
    """
    if model.parameters:
        names = ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "vocab_size", "tied")
        return model.parameters, ModelShape(**{name: getattr(model, name) for name in names})
    known = parameters_and_shape(model.model)
    if known is None:
        raise RecipeError(
            f"{role}.parameters: is missing, and {model.model} is no folder on this machine; add the shape"
        )
    return known


def dry_run(setup: Setup, jobs: Sequence[Job], *, summary: bool) -> Iterator[str]:
    """Yield the lines of a dry run: every command with its cost, then the sums.

    Args:
        setup: The recipe.
        jobs: Its jobs.
        summary: Leave the single commands out.
    """
    model = CostModel(setup, jobs)
    if not summary:
        for job in jobs:
            yield f"{job.stage.name}: {job.stage.shown()}"
            yield f"    {_job_cost(model, job)}"
        yield ""
    yield from _sums(model, jobs)


def _job_cost(model: CostModel, job: Job) -> str:
    costs = model.costs(job)
    seconds, gpu_hours = sum(cost.seconds for cost in costs), sum(cost.gpu_hours for cost in costs)
    if (taken := model.done[job.stage.name]) is not None:
        return f"done in {duration(taken)}"
    if not job.works:
        return "seconds"
    works = ", ".join(f"{work.kind} {work.amount:,} {UNITS[work.kind]} ({work.who})" for work in job.works)
    on_gpus = f", {gpu_hours:,.2f} GPU-hours" if gpu_hours else ""
    num_bytes = sum(work.num_bytes for work in job.works)
    on_disk = f"; {size(num_bytes)} on disk" if num_bytes else ""
    return f"at most {duration(seconds)}{on_gpus}: {works}{on_disk}"


def _sums(model: CostModel, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield a line for each kind of work, the total, and where the rates come from."""
    groups: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for job in jobs:
        for cost in model.costs(job):
            groups[cost.work.kind, cost.work.who].append(cost)
    recipe = model.setup.recipe
    machine = recipe.rates.machine or "this machine"
    yield f"{recipe.teacher.title} -> {recipe.student.title} on {machine}: {len(jobs)} commands, one after another"
    yield f"{'':18}{'at most':>27}{'time':>10}{'GPU-hours':>12}{'on disk':>10}"
    for (kind, who), costs in groups.items():
        amount = sum(cost.work.amount for cost in costs)
        yield _line(f"{kind}, {who}", costs, f"{amount:,} {UNITS[kind]:8}")
    everything = [cost for costs in groups.values() for cost in costs]
    yield _line("all", everything, "")
    days = sum(cost.seconds for cost in everything) / 86_400
    done = sum(seconds is not None for seconds in model.done.values())
    yield f"{days:.1f} days; {done} commands are finished"
    yield "not counted: starts of programs and engines"
    yield "rates:"
    for (kind, who), rate in model.rates.items():
        yield f"    {kind}, {who}: {rate.per_second:,.0f} {UNITS[kind]}/s ({rate.how})"


def _line(name: str, costs: Sequence[Cost], amount: str) -> str:
    gpu_hours = sum(cost.gpu_hours for cost in costs)
    num_bytes = sum(cost.work.num_bytes for cost in costs)
    hours, disk = f"{gpu_hours:,.1f}" if gpu_hours else "", size(num_bytes) if num_bytes else ""
    time = duration(sum(cost.seconds for cost in costs))
    return f"{name:18}{amount:>27}{time:>10}{hours:>12}{disk:>10}".rstrip()


def duration(seconds: float) -> str:
    """Return seconds as a text with a fitting unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def size(num_bytes: float) -> str:
    """Return bytes as a text."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"

"""The stages of the experiment as public commands: writing, verdicts, recording, training, scoring.

Arms, at equal steps and from the same student:

- `sft`: cross-entropy on the teacher's responses.
- `kd`: the losses across tokenizers on the same rows.
- `kd-passed`: the same on responses that pass their tests.
- `on-policy`: half of the steps as `kd`; the rest on responses that this student wrote and the teacher recorded.

`same-sft` and `same-kd` are the control with one tokenizer: a shallower copy of the student learns from the student.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import _commands
from benchmarks._stages import Stage

MBPP = "mbpp:train"
ARMS = ("sft", "kd", "kd-passed", "on-policy")
SAME = ("same-sft", "same-kd")
"""Arms of the control."""
BENCHMARKS = {"humaneval": "humaneval-evalplus-chat-v1", "mbpp": "mbpp-chat-v1"}
"""Protocol of each benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes and places of one run of the experiment."""

    scratch: Path
    teacher: str
    student: str
    mbpp: Path
    """mbpp.jsonl."""
    corpus: str
    """Folder whose documented functions become prompts."""
    prompts: int = 374
    """Most prompts of MBPP."""
    samples: int = 4
    """Responses to each prompt of MBPP."""
    functions: int = 400
    """Most prompts from the corpus."""
    new_tokens: int = 300
    steps: int = 200
    batch_tokens: int = 8192
    micro_tokens: int = 8192
    learning_rate: float = 5e-5
    seeds: tuple[int, ...] = (0, 1)
    limit: int = 0
    """Score only so many problems; 0 for all."""
    sampled_limit: int = 0
    """The same for the scores from ten samples."""
    engine: str = "auto"
    options: tuple[str, ...] = field(default=())
    """Further options of every `evalkit score`."""

    def path(self, *parts: str) -> str:
        """Return a path in the scratch folder."""
        return str(self.scratch.joinpath(*parts))

    def students(self) -> list[str]:
        """Return the names of the trained students that are scored."""
        return [f"{arm}-{seed}" for seed in self.seeds for arm in ARMS]


def stages(plan: Plan) -> list[Stage]:
    """Return all stages of the experiment."""
    return [
        *_responses(plan),
        *_caches(plan),
        *(stage for seed in plan.seeds for stage in _arms(plan, seed)),
        *_scores(plan),
    ]


def _write(plan: Plan, *, model: str, prompts: str, out: str, samples: int, writer: str = "") -> tuple[str, ...]:
    return _commands.writing(
        model=model,
        prompts=prompts,
        out=out,
        samples=samples,
        new_tokens=plan.new_tokens,
        engine=plan.engine,
        writer=writer,
    )


def _limit(plan: Plan) -> tuple[str, str]:
    return ("--max-documents", str(plan.prompts))


def _responses(plan: Plan) -> list[Stage]:
    """Return the stages that write the teacher's responses, and judge those to MBPP."""
    prompts = f"{MBPP}={plan.mbpp}"
    signatures = f"signatures:{plan.corpus}"
    written = _write(plan, model=plan.teacher, prompts=prompts, out=plan.path("mbpp"), samples=plan.samples)
    functions = _write(plan, model=plan.teacher, prompts=signatures, out=plan.path("functions"), samples=2)
    few = ("--max-documents", str(plan.functions))
    return [
        Stage(name="write-mbpp", module="teacher_dump", arguments=(*written, *_limit(plan), "--responses-only")),
        Stage(name="write-functions", module="teacher_dump", arguments=(*functions, *few, "--responses-only")),
        Stage(
            name="verdicts",
            module="evalkit",
            arguments=_commands.judging(
                responses=plan.path("mbpp", "responses.jsonl"),
                task=MBPP,
                data_dir=str(plan.mbpp.parent),
                result=plan.path("verdicts.json"),
            ),
            needs=("write-mbpp",),
        ),
        Stage(
            name="join",
            module="benchmarks.responses.join",
            arguments=(
                *(plan.path("mbpp", "responses.jsonl"), plan.path("functions", "responses.jsonl")),
                plan.path("all.jsonl"),
            ),
            needs=("write-mbpp", "write-functions"),
        ),
    ]


def _caches(plan: Plan) -> list[Stage]:
    """Return the stages that record the responses."""
    same = _write(plan, model=plan.student, prompts=f"{MBPP}={plan.mbpp}", out=plan.path("same"), samples=2)
    record = partial(_commands.recording, model=plan.teacher, engine=plan.engine)
    return [
        Stage(
            name="record",
            module="teacher_dump",
            arguments=record(data=plan.path("all.jsonl"), out=plan.path("cache")),
            needs=("join",),
        ),
        Stage(
            name="record-passed",
            module="teacher_dump",
            arguments=record(
                data=plan.path("mbpp", "responses.jsonl"),
                verdicts=plan.path("verdicts.json"),
                out=plan.path("passed"),
            ),
            needs=("verdicts",),
        ),
        Stage(name="record-same", module="teacher_dump", arguments=(*same, *_limit(plan))),
    ]


def _train(plan: Plan, name: str, cache: str, *, steps: int, seed: int, student: str = "") -> tuple[str, ...]:
    return _commands.training(
        shards=cache,
        student=student or plan.student,
        out=plan.path("runs", name),
        seed=seed,
        budget=_commands.TrainingBudget(
            steps=steps,
            batch_tokens=plan.batch_tokens,
            micro_tokens=plan.micro_tokens,
            learning_rate=plan.learning_rate,
        ),
    )


def _arms(plan: Plan, seed: int) -> list[Stage]:
    """Return the stages that train one student per arm."""

    def arm(
        name: str, cache: str, needs: tuple[str, ...], *options: str, steps: int = plan.steps, student: str = ""
    ) -> Stage:
        arguments = _train(plan, f"{name}-{seed}", plan.path(cache), steps=steps, seed=seed, student=student)
        return Stage(name=f"{name}-{seed}", module="student_train", arguments=(*arguments, *options), needs=needs)

    half, round_two = plan.steps // 2, f"round2-{seed}"
    first = plan.path("runs", f"kd-half-{seed}")
    written = _write(
        plan,
        model=plan.teacher,
        writer=first,
        prompts=f"{MBPP}={plan.mbpp}",
        out=plan.path(round_two),
        samples=max(1, plan.samples // 2),
    )
    shallow = ("--student-layers", "24")
    brief = ("--held-out-tokens", "1000")  # the stages `held-out` compare the finished students on all prompts
    return [
        arm("sft", "cache", ("record",), "--objective", "sft"),
        arm("kd", "cache", ("record",)),
        arm("kd-passed", "passed", ("record-passed",), *brief),
        arm("kd-half", "cache", ("record",), *brief, steps=half),
        Stage(name=round_two, module="teacher_dump", arguments=(*written, *_limit(plan)), needs=(f"kd-half-{seed}",)),
        arm("on-policy", round_two, (round_two,), *brief, steps=plan.steps - half, student=first),
        arm("same-sft", "same", ("record-same",), "--objective", "sft", *shallow),
        arm("same-kd", "same", ("record-same",), *shallow),
    ]


def _scores(plan: Plan) -> list[Stage]:
    """Return the stages that score the untouched student, the teacher and every trained student: greedy first."""
    names = ("base", *plan.students(), "teacher")
    greedy = [stage for name in names for stage in _scores_of(plan, name, kind="greedy", samples=1)]
    return [
        *greedy,
        *(_ends(plan, name) for name in names),
        *(_held_out(plan, name) for name in names if name != "teacher"),
        *(stage for name in names for stage in _scores_of(plan, name, kind="samples", samples=10)),
    ]


def _checkpoint(plan: Plan, name: str) -> str:
    return {"base": plan.student, "teacher": plan.teacher}.get(name, plan.path("runs", name))


def _scores_of(plan: Plan, name: str, *, kind: str, samples: int) -> list[Stage]:
    """Return the stages that score one model on each benchmark."""
    limit = plan.limit if samples == 1 else plan.sampled_limit
    return [
        Stage(
            name=f"{name}-{task}-{kind}",
            module="evalkit",
            arguments=(
                *_commands.scoring(
                    model=_checkpoint(plan, name),
                    task=task,
                    protocol=protocol,
                    samples=samples,
                    new_tokens=plan.new_tokens,
                    data_dir=str(plan.mbpp.parent),
                    result=plan.path("scores", f"{name}-{task}-{kind}.json"),
                    limit=limit,
                ),
                *plan.options,
            ),
            needs=(name,) if name in plan.students() else (),
        )
        for task, protocol in BENCHMARKS.items()
    ]


def _ends(plan: Plan, name: str) -> Stage:
    """Return the stage in which a model answers prompts that were never trained on, until it ends by itself."""
    prompts, out = f"mbpp:validation={plan.mbpp}", plan.path("ends", name)
    written = _write(plan, model=_checkpoint(plan, name), prompts=prompts, out=out, samples=1)
    needs = (name,) if name in plan.students() else ()
    return Stage(name=f"{name}-ends", module="teacher_dump", arguments=(*written, "--responses-only"), needs=needs)


def _held_out(plan: Plan, name: str) -> Stage:
    """Return the stage that compares a student with the teacher on prompts that no arm is trained on."""
    needs = ("record", name) if name in plan.students() else ("record",)
    arguments = _commands.comparing(
        model=_checkpoint(plan, name), shards=plan.path("cache"), result=plan.path("held_out", f"{name}.json")
    )
    return Stage(name=f"{name}-held-out", module="student_train", arguments=arguments, needs=needs)

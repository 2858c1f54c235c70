"""How does a run go? Open, load, measure, train, save, measure again, write the record. Stoppable anywhere.

`run` is what the command line calls. OUT becomes an ordinary transformers folder; its `run.json` comes last and so
means that the run is finished. Everything between two checkpoints is a pure function of the first of them and the
configuration, so a run that was killed and continued ends in the same bits as one that was not.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import shards
from student_train import checkpoint
from student_train.adapters import add_adapters
from student_train.config import Config
from student_train.errors import CheckpointError, Interrupted, TrainError
from student_train.evaluate import RowScore, held_out_rows, lines, score
from student_train.fused import LossSpec
from student_train.loader import BatchSpec, Stream
from student_train.losses import needs
from student_train.order import Plan, make_plan
from student_train.packing import Batch
from student_train.parallel import World, join, split
from student_train.progress import Progress
from student_train.record import describe, run_record
from student_train.step import Distiller, Scores, learning_rate, make_optimizer, require_plain_head, take_step
from student_train.student import Student, load, plain

Say = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    """Print a line for people."""
    print(line, file=sys.stderr, flush=True)


def run(config: Config, *, command: list[str], say: Say = say_on_stderr) -> None:
    """Train what `config` asks for, and its control if asked; do nothing for what is finished.

    Raises: TrainError and shards.ShardError for what a user can mend, Interrupted after a signal, state saved.
    """
    cache = shards.open(config.shards)
    manifest_sha256 = cache.manifest_sha256
    jobs = [config]
    if config.control:
        jobs.append(replace(config, objective="sft", control=False, out=str(Path(config.out) / "control")))
    before = None
    with _deterministic(config), join(config.device) as world:
        say = say if world.leads else _say_nothing
        for job in jobs:
            out = Path(job.out)
            if _is_finished(out, job, manifest_sha256):
                say(f"{out}: finished earlier, nothing to do; name another --out for another run")
                continue
            before = _train(job, cache, manifest_sha256, world=world, command=command, say=say, before=before)
            world.wait()


def _say_nothing(line: str) -> None:
    """Leave the speaking to the first rank."""


def _is_finished(out: Path, config: Config, manifest_sha256: str) -> bool:
    """Return whether `out` holds this very run, done. Raises: CheckpointError if it holds something else."""
    if (out / "run.json").is_file():
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        _require_same(out, config, manifest_sha256, record["config"], record["manifest_sha256"])
        return True
    ours = ("checkpoints", "control", "metrics.jsonl", "held_out.jsonl", "tb")
    if out.is_dir():
        there = sorted(entry.name for entry in out.iterdir())
        if there and not any(name in ours for name in there):
            raise CheckpointError(
                f"{out}: found {there[0]}, expected an empty folder or one of student-train; name another --out"
            )
    elif out.exists():
        raise CheckpointError(f"{out}: found a file, expected a folder or nothing; name another --out")
    return False


def _require_same(out: Path, config: Config, manifest_sha256: str, settings: dict[str, Any], digest: str) -> None:
    if digest != manifest_sha256:
        raise CheckpointError(
            f"{out}: found a run on the shards with manifest {digest[:12]}, expected {manifest_sha256[:12]} of "
            f"{config.shards}; train on those shards, or name another --out"
        )
    wanted = config.identity()
    for name, value in wanted.items():
        if settings.get(name) != value:
            raise CheckpointError(
                f"{out}: found a run with {name.replace('_', '-')} {settings.get(name)!r}, expected {value!r}; use "
                "its settings to continue it, or name another --out"
            )


@dataclass(kw_only=True, slots=True)
class _Run:
    """What one run needs at hand."""

    config: Config
    out: Path
    student: Student
    distiller: torch.nn.Module
    optimizer: torch.optim.Optimizer
    world: World
    plan: Plan
    batches: BatchSpec
    total: int
    held: list[Any]
    wanted: _Signals


def _train(
    config: Config,
    cache: shards.Cache,
    manifest_sha256: str,
    *,
    world: World,
    command: list[str],
    say: Say,
    before: list[RowScore] | None,
) -> list[RowScore]:
    """Do one run and return its held-out scores before training."""
    out = Path(config.out)
    if world.leads:
        checkpoint.remove_incomplete(out)
    state = _newest_state(out, config, manifest_sha256)
    with _stop_on_signals() as wanted:
        this = _prepare(config, cache, manifest_sha256, wanted, world)
        model = this.student.model
        if state is None:
            say(f"{out}: {describe(config, this.student, this.total, this.plan)}")
            before = before or _score(this, "held-out, before")
            state = {"step": 0, "tokens": 0, "seconds": 0.0}
        else:
            before = [RowScore(**line) for line in state["before"]]
            checkpoint.load(out, step=state["step"], model=model, optimizer=this.optimizer)
            say(f"{out}: continuing at step {state['step']} of {this.total}")
        state |= {
            "manifest_sha256": manifest_sha256,
            "config": config.as_dict(),
            "before": [asdict(row) for row in before],
        }
        _loop(this, cache, state)
        after = _score(this, "held-out, after")
        record = _record(this, cache, manifest_sha256, state, before, after, command)
        model = plain(this.student, world_size=world.size, leads=world.leads, rank=config.lora_rank, seed=config.seed)
        if world.leads:
            _finish(this, model, record, before, after, say=say)
    return before


def _record(
    this: _Run,
    cache: shards.Cache,
    manifest_sha256: str,
    state: dict[str, Any],
    before: list[RowScore],
    after: list[RowScore],
    command: list[str],
) -> dict[str, Any]:
    return run_record(
        config=this.config,
        cache=cache,
        manifest_sha256=manifest_sha256,
        student=this.student,
        state=state,
        before=before,
        after=after,
        command=command,
    )


def _finish(
    this: _Run,
    model: Any,
    record: dict[str, Any],
    before: list[RowScore],
    after: list[RowScore],
    *,
    say: Say,
) -> None:
    """Write what the run leaves: the model, the held-out rows, and last the record."""
    out = this.out
    checkpoint.export(out, model=model, tokenizer_dir=this.student.tokenizer_dir, dtype=this.config.export_dtype)
    text = "".join(json.dumps(line) + "\n" for line in lines(after, before))
    checkpoint.write_text(out / "held_out.jsonl", text)
    checkpoint.write_text(out / "run.json", json.dumps(record, indent=1) + "\n")
    say(_result(out, record))


def _newest_state(out: Path, config: Config, manifest_sha256: str) -> dict[str, Any] | None:
    found = checkpoint.steps(out)
    if not found:
        return None
    state = checkpoint.read_state(out, step=found[-1])
    _require_same(out, config, manifest_sha256, state["config"], state["manifest_sha256"])
    return state


def _prepare(config: Config, cache: shards.Cache, manifest_sha256: str, wanted: _Signals, world: World) -> _Run:
    manifest = cache.manifest
    column = None
    if config.objective == "kd" and config.temperature != 1.0:
        stored = [round(t, 6) for t in manifest.temperatures]
        if round(config.temperature, 6) not in stored:
            raise TrainError(
                f"temperature is {config.temperature}; the shards store {', '.join(map(str, stored)) or 'none'}; "
                "choose one of those, or 1, or dump again"
            )
        column = stored.index(round(config.temperature, 6))
    student = load(
        config.student,
        layers=config.student_layers,
        teacher=manifest.teacher,
        shards_tokenizer=cache.tokenizer_dir,
        seed=config.seed,
    )
    require_plain_head(student.model)
    if config.lora_rank:
        student.adapted = add_adapters(student.model, rank=config.lora_rank, seed=config.seed)
    if config.specialist and max(config.specialist) >= student.vocab_size:
        raise TrainError(f"specialist has id {max(config.specialist)}; the student has {student.vocab_size} ids")
    if config.gradient_checkpointing:
        student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    spec = LossSpec(
        divergence=config.divergence if config.objective == "kd" else None,
        ce_weight=config.ce_weight,
        temperature=config.temperature,
        skew=config.skew,
    )
    distiller = split(Distiller(student.model, spec, dtype=config.dtype).to(world.device), world)
    plan = make_plan(
        tuple(cache.chunk_rows(i) for i in range(len(cache))),
        tokens=cache.tokens,
        batch_tokens=config.batch_tokens,
        manifest_sha256=manifest_sha256,
        seed=config.seed,
    )
    skip = max(0, len(manifest.tokenizer.prefix_tokens) - 1)
    held = held_out_rows(cache, fraction=config.held_out, max_tokens=config.held_out_tokens)
    held = [row for row in held if len(row.tokens) - 1 > skip]
    if config.held_out > 0 and config.held_out_tokens > 0 and not held:
        raise TrainError(
            f"{config.shards}: found no held-out document at a share of {config.held_out}, expected at least one; "
            "raise --held-out, dump more documents, or give --held-out 0 to go without"
        )
    return _Run(
        config=config,
        out=Path(config.out),
        student=student,
        distiller=distiller,
        optimizer=make_optimizer(student.model, config),
        world=world,
        plan=plan,
        batches=BatchSpec(
            vocab_size=student.vocab_size,
            max_row_tokens=student.max_row_tokens,
            micro_tokens=config.micro_tokens,
            sparse=needs(config.objective, config.divergence, specialist=bool(config.specialist)),
            temperature=config.temperature,
            temperature_column=column,
            skip=skip,
            held_out=config.held_out,
            subset=config.specialist,
        ),
        total=config.max_steps or config.epochs * plan.steps_per_epoch,
        held=held,
        wanted=wanted,
    )


def _loop(this: _Run, cache: shards.Cache, state: dict[str, Any]) -> None:
    """Train from state["step"] to the end, updating `state`, saving as asked and at the end."""
    config, out = this.config, this.out
    this.distiller.train()
    first = state["step"]
    with (
        _metrics(out, first, tensorboard=config.tensorboard, leads=this.world.leads) as log,
        Progress("training", this.total, first=first, shown=config.progress and this.world.leads) as bar,
        Stream(
            cache,
            this.plan,
            this.batches,
            first=first,
            last=this.total,
            prefetch=config.prefetch,
            rank=this.world.rank,
            world_size=this.world.size,
        ) as steps,
    ):
        started = time.perf_counter()
        for step in steps:
            # Dropout, where a student has any: seeded by the step, so a continued run draws the same.
            torch.manual_seed(config.seed * 1_000_003 + step.number)
            lr = learning_rate(config, step=step.number, total=this.total)
            result = take_step(
                this.distiller,
                this.optimizer,
                step.batches,
                number=step.number + 1,
                lr=lr,
                clip=config.clip,
                world=this.world,
                stop=this.wanted.stop,
            )
            took = time.perf_counter() - started
            started = time.perf_counter()
            state["step"] = step.number + 1
            state["tokens"] += result.positions
            state["seconds"] += took
            parts = {"ce_loss": result.ce} if result.kd is None else {"kd_loss": result.kd, "ce_loss": result.ce}
            log(
                {
                    "step": state["step"],
                    "loss": result.loss,
                    **parts,
                    "lr": lr,
                    "tokens": state["tokens"],
                    "tokens_per_s": result.positions / took,
                }
            )
            bar.advance(steps=1, tokens=result.positions, note=f"loss {result.loss:.4f}")
            last = state["step"] == this.total
            if last or result.stop or (config.save_every and state["step"] % config.save_every == 0):
                checkpoint.save(
                    out,
                    model=this.student.model,
                    optimizer=this.optimizer,
                    state=state,
                    keep=config.keep,
                    leads=this.world.leads,
                )
                started = time.perf_counter()
            if result.stop and not last:
                raise _interrupted(out, state["step"], this.total)


def _score(this: _Run, title: str) -> list[RowScore]:
    this.distiller.eval()
    total = sum(len(row.tokens) - 1 - this.batches.skip for row in this.held) // this.world.size
    shown = this.config.progress and total > 0 and this.world.leads
    with Progress(title, total, shown=shown) as bar:

        def tick(tokens: int) -> None:
            bar.advance(steps=tokens, tokens=tokens)
            if this.wanted.stop:
                found = checkpoint.steps(this.out)
                raise _interrupted(this.out, found[-1] if found else 0, this.total)

        def scorer(batch: Batch) -> Scores:
            return this.distiller(batch.to(this.world.device), None)  # type: ignore[no-any-return]

        return score(this.held, this.batches, scorer, world=this.world, tick=tick)


def _interrupted(out: Path, step: int, total: int) -> Interrupted:
    return Interrupted(f"{out}: stopped at step {step} of {total}; run the same command to go on from there")


def _result(out: Path, record: dict[str, Any]) -> str:
    train, held = record["train"], record["held_out"]
    text = f"{out}: {train['steps']} steps, {train['tokens']:,} tokens, {train['tokens_per_s']:,.0f} tokens/s"
    if held["after"] is None:
        return text
    names = {"kl": "KL to the teacher", "bits_per_byte": "bits per byte", "top1_agreement": "top-1 agreement"}
    for key, name in names.items():
        after = held["after"][key]
        text += (
            f"; {name} {held['before'][key]['mean']:.4f} -> {after['mean']:.4f} "
            f"[{after['low']:.4f}, {after['high']:.4f}]"
        )
    return text + f" on {held['tokens']:,} held-out tokens"


@contextmanager
def _metrics(out: Path, first: int, *, tensorboard: bool, leads: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that appends to metrics.jsonl, from which lines past step `first` were removed."""
    if not leads:
        yield lambda line: None
        return
    path = out / "metrics.jsonl"
    kept = ""
    if first and path.is_file():
        told = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(line for line in told if line.endswith("\n") and json.loads(line)["step"] <= first)
    checkpoint.write_text(path, kept)
    board = _board(out, first) if tensorboard else None
    with path.open("a", encoding="utf-8") as file:

        def log(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()
            for name, value in line.items() if board is not None else ():
                if name != "step":
                    board.add_scalar(name, value, line["step"])

        try:
            yield log
        finally:
            if board is not None:
                board.close()


def _board(out: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tb"), purge_step=first + 1 if first else None)


@dataclass(slots=True)
class _Signals:
    stop: bool = False


@contextmanager
def _stop_on_signals() -> Iterator[_Signals]:
    """Note SIGINT and SIGTERM for the loop to see; a second one acts at once."""
    wanted = _Signals()
    old: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: Any) -> None:
        wanted.stop = True
        for which, handler in old.items():
            signal.signal(which, handler)

    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            old[which] = signal.signal(which, note)
    except ValueError:
        old = {}  # not in the main thread: signals are someone else's
    try:
        yield wanted
    finally:
        for which, handler in old.items():
            signal.signal(which, handler)


@contextmanager
def _deterministic(config: Config) -> Iterator[None]:
    """Make torch repeat itself to the last bit on one machine, and put its switches back at the end."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0])
        torch.utils.deterministic.fill_uninitialized_memory = was[1]
        torch.set_num_threads(threads)

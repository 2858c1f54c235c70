"""What makes a run another one: samples of other prompts are never reused, and those of 0.2.0 are taken over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.generation.base import EngineSettings
from evalkit.generation.checkpoint import Checkpoint, find_checkpoint
from evalkit.generation.run import CheckpointSource
from evalkit.generation.run_digest import RunDigest, recorded, run_digest
from evalkit.request import Request
from evalkit.samples.base import GeneratedSamples, Sample, SamplePlan
from evalkit.tasks import protocols
from evalkit.tasks.base import Benchmark, Problem
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

CHECKPOINT = Checkpoint(source="model", sha256="a" * 64, folder=None)
SETTINGS = EngineSettings(engine="transformers", batch_size=16, dtype="float32")
PROGRAM = "def f(x):\n    return x\n"


class Notes:
    """Callbacks that keep the notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def start(self, what: str, total: int) -> None:
        pass

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        pass

    def stop(self) -> None:
        pass


def plan_of(
    name: str, *, protocol: str = "mbpp-chat-v1", sha256: str = "", entry_points: tuple[str, ...] = ("f",)
) -> SamplePlan:
    number = 700 if ":" in name else 11
    problem = Problem(
        task_id=f"Mbpp/{number}",
        prompt="",
        description=f"A task of {name}.",
        entry_points=entry_points,
        prelude="",
        test="",
        reference=PROGRAM,
    )
    benchmark = Benchmark(
        name=name, problems=(problem,), source="", sha256=sha256 or name.partition(":")[0], is_part=":" in name
    )
    return SamplePlan(
        benchmark=benchmark, problems=benchmark.problems, protocol=protocols.find(protocol, task=name.partition("+")[0])
    )


def digest(plan: SamplePlan, settings: EngineSettings = SETTINGS) -> RunDigest:
    return run_digest(CHECKPOINT, plan, settings, Request(checkpoint="model", result=Path("score.json")))


def generate(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, folder: Path, plan: SamplePlan, **settings: object
) -> tuple[GeneratedSamples, list[str]]:
    """Return what one run generates in a folder, and its notes."""
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine(PROGRAM + "print(f(1))\n"))
    request = Request(
        checkpoint=str(checkpoint), tasks=(plan.benchmark.name,), result=folder / "score.json", **settings
    )
    notes = Notes()
    source = CheckpointSource(checkpoint=find_checkpoint(str(checkpoint)), request=request, callbacks=notes)
    return source.generate(plan, on_sample=lambda sample: None), notes.lines


def test_samples_of_one_benchmark_are_not_those_of_its_other_edition(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both have a task of the same id, and both runs use `score.samples.jsonl`."""
    first, _ = generate(monkeypatch, checkpoint, tmp_path, plan_of("mbpp"))
    other, notes = generate(monkeypatch, checkpoint, tmp_path, plan_of("mbpp-sanitized"))
    again, _ = generate(monkeypatch, checkpoint, tmp_path, plan_of("mbpp"))
    assert [made.num_reused for made in (first, other, again)] == [0, 0, 1]
    assert first.samples[0].run != other.samples[0].run
    assert any("held samples of another checkpoint, benchmark or setting" in line for line in notes)


def test_the_digest_covers_the_data_of_every_benchmark():
    plans = [plan_of("mbpp"), plan_of("mbpp-sanitized"), plan_of("mbpp", sha256="another release")]
    assert len({digest(plan).run for plan in plans}) == 3
    assert digest(plan_of("mbpp:train")).run == digest(plan_of("mbpp")).run  # one file, and other ids
    derived = [digest(plan).derived("refine", 1) for plan in plans]
    assert len({other.run for other in derived}) == 3


def test_another_batch_size_continues_a_run(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    generate(monkeypatch, checkpoint, tmp_path / "a", plan_of("mbpp"), batch_size=8)
    again, _ = generate(monkeypatch, checkpoint, tmp_path / "a", plan_of("mbpp"), batch_size=2)
    assert again.num_reused == 1
    generate(monkeypatch, checkpoint, tmp_path / "b", plan_of("mbpp"), batch_size=8, deterministic=True)
    again, _ = generate(monkeypatch, checkpoint, tmp_path / "b", plan_of("mbpp"), batch_size=2, deterministic=True)
    assert again.num_reused == 0


@pytest.mark.parametrize(
    ("name", "protocol", "earlier"),
    [
        ("humaneval", "humaneval-openai-v1", "8222ef842ceb3b0a"),
        ("mbpp", "mbpp-chat-v1", "0a934bfad2585047"),
        ("mbpp:train", "mbpp-chat-v1", "0a934bfad2585047"),
        ("humaneval", "humaneval-evalplus-chat-v1", "6a63b4072174ca7d"),
    ],
)
def test_the_digest_of_an_earlier_version_is_known(name: str, protocol: str, earlier: str):
    """The values were computed by version 0.2.0."""
    known = digest(plan_of(name, protocol=protocol)).earlier
    assert known is not None
    assert known.run == earlier


@pytest.mark.parametrize(
    ("name", "protocol", "is_known"),
    [
        ("mbpp-sanitized", "mbpp-chat-v1", False),
        ("mbpp-sanitized", "mbpp-sanitized-3shot-v1", True),
        ("humaneval+", "humaneval-evalplus-v1", True),  # its default
        ("humaneval", "humaneval-evalplus-v1", False),
        ("humaneval+", "humaneval-evalplus-chat-v1", False),
    ],
)
def test_an_earlier_file_is_taken_for_that_of_one_benchmark_only(name: str, protocol: str, is_known: bool):
    plan = replace(plan_of("mbpp"), protocol=protocols.find(protocol, task=name))
    plan = replace(plan, benchmark=replace(plan.benchmark, name=name))
    assert (digest(plan).earlier is not None) == is_known


def earlier_file(folder: Path, checkpoint: Path, plan: SamplePlan, *, batch_size: int) -> Path:
    """Write the file of a run as version 0.2.0 did."""
    from evalkit.generation.engine import choose_settings
    from evalkit.outputs.files import sha256_text

    assert plan.protocol is not None
    settings = choose_settings("auto", batch_size=batch_size, deterministic=False).settings.to_dict()
    parts = [find_checkpoint(str(checkpoint)).sha256, recorded(plan.protocol), settings, 0]
    run = sha256_text(json.dumps(parts))[:16]
    sample = Sample(task_id=plan.problems[0].task_id, solution="class Node: pass\n", raw="whole", seed=1, run=run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "score.samples.jsonl"
    path.write_text(sample.to_line())
    return path


def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    path = earlier_file(tmp_path, checkpoint, plan_of("mbpp"), batch_size=8)
    made, notes = generate(monkeypatch, checkpoint, tmp_path, plan_of("mbpp"), batch_size=8)
    assert (made.num_reused, made.samples[0].raw) == (1, "whole")
    assert not any("moved" in line for line in notes)
    again, _ = generate(monkeypatch, checkpoint, tmp_path, plan_of("mbpp"), batch_size=2)
    assert again.num_reused == 1
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_answers_that_an_earlier_version_cut_are_generated_again(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = plan_of("mbpp", entry_points=("Node", "f"))
    path = earlier_file(tmp_path, checkpoint, plan, batch_size=8)
    before = path.read_text()
    made, _ = generate(monkeypatch, checkpoint, tmp_path, plan, batch_size=8)
    assert (made.num_reused, made.samples[0].solution) == (0, PROGRAM)
    (kept,) = (other for other in tmp_path.iterdir() if other != path)
    assert kept.read_text() == before

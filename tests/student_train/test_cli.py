"""Tests of the command line: options, help, errors and exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from student_train.cli import main
from student_train.config import Config, from_dict
from student_train.errors import TrainError

REPOSITORY = Path(__file__).parents[2]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_help_shows_every_setting_with_its_default() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for name, value in Config().to_dict().items():
        assert f"--{name.replace('_', '-')}" in text
        if not isinstance(value, bool | list) and value != "":
            assert f"[default: {value}]" in text


def test_help_answers_at_once_and_imports_no_torch() -> None:
    code = (
        "import sys; from student_train.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: what a person waits on an idle machine, whatever else runs on this one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--objective", "guess"], 2, "'guess' is not one of 'kd', 'sft'"),
        (["--nonsense"], 2, "No such option"),
        (["--max-steps", "many"], 2, "'many' is not a valid integer"),
        (["--ce-weight", "2"], 1, "student-train: ce-weight is 2.0; expected a number from 0 to 1"),
        (["--learning-rate", "nan"], 1, "student-train: learning-rate is nan; expected"),
        (["--beta2", "1"], 1, "student-train: beta2 is 1.0; expected at least 0 and less than 1"),
        (["--seed", "20251127123000"], 1, "student-train: seed is 20251127123000; expected at most 17592186044416"),
        (["--student-layers", "1"], 1, "the first and the last stay"),
        (["--temperature", "2"], 1, "use --divergence bucket-forward-kl, or --temperature 1"),
        (["--specialist", "nowhere.txt"], 1, "nowhere.txt: found no list of ids"),
        (["--repeat", "nowhere.json"], 1, "nowhere.json: found no run's record"),
        (["--shards", "nowhere/"], 1, "nowhere: found no manifest.json, expected a complete cache"),
    ],
)
def test_a_wrong_command_is_one_line_with_its_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code
    assert message in result.output
    if code == 1:
        assert result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from student_train.training import trainer

    def broken(*_args: Any, **_named: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(trainer, "run", broken)
    assert isinstance(invoke("--shards", "x").exception, RuntimeError)


def test_debug_shows_the_traceback_of_an_error_that_a_user_can_fix(tmp_path: Path) -> None:
    assert isinstance(invoke("--debug", "--repeat", tmp_path / "none.json").exception, TrainError)


def test_version_is_that_of_the_package() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"student-train, version {metadata.version('teacherless')}\n")


def test_unknown_settings_of_a_record_are_refused() -> None:
    with pytest.raises(TrainError, match="found unknown settings colour"):
        from_dict({"colour": "blue"})


def test_a_run_repeats_from_its_record_to_the_last_bit(at_home: Any, tmp_path: Path) -> None:
    flags = ["--student-layers", 2, "--max-steps", 4, "--batch-tokens", 150, "--held-out", 0.2, "--seed", 5]
    quiet = ["--no-tensorboard", "--no-progress", "--threads", 1]
    first = invoke("--shards", at_home.shards, "--out", tmp_path / "a", *flags, *quiet)
    assert first.exit_code == 0, first.output
    again = invoke("--repeat", tmp_path / "a" / "run.json", "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    names = ("model.safetensors", "held_out.jsonl", "config.json")
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    records = [json.loads((tmp_path / x / "run.json").read_text()) for x in "ab"]
    assert records[0]["config"] | {"out": ""} == records[1]["config"] | {"out": ""}


def test_exhausted_gpu_memory_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from student_train.training import trainer

    def exhausted(*arguments: Any, **settings: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(trainer, "run", exhausted)
    result = invoke("--micro-tokens", 2048, "--no-progress")
    assert result.exit_code == 1
    assert "out of GPU memory (CUDA out of memory. Tried to allocate 2.00 GiB.)" in result.output
    assert "lower --micro-tokens (found 2048)" in result.output

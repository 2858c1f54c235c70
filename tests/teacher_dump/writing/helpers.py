"""Settings and calls that the tests of writing share."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shards.format.messages import messages_json
from shards.runtime.heartbeat import Heartbeat
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.run.signals import StopSignals
from teacher_dump.writing.job import WritingJob, prepare_writing
from teacher_dump.writing.prompts.prompt import ResponsePrompt, user_message
from teacher_dump.writing.run import WritingOutcome, run_writing
from teacher_dump.writing.settings import WritingSettings
from teacher_dump.writing.task import ResponseRequest

TEXTS = ("def greet(name):", "total = 0", "for i in range(10):", "print(total)", "name = '", "# caf\u00e9", "return f")
"""Prompts in the words of the tiny teacher's corpus."""


def save_prompts(path: Path, texts: Sequence[str] = TEXTS) -> Path:
    """Write a file of prompts."""
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def writing_config(model: Path, out: Path, **more: Any) -> DumpConfig:
    """Return the settings of a small dump that writes with transformers, in float32."""
    settings: dict[str, Any] = {
        "engine": "transformers",
        "dtype": "float32",
        "filters": FilterSettings(decontaminate="none"),
    }
    return DumpConfig(model=str(model), data=str(out / "responses.jsonl"), out=out, **{**settings, **more})


def writing_settings(prompts: Path | str, **more: Any) -> WritingSettings:
    """Return the settings of a few short responses to each prompt, in tasks of two prompts."""
    settings: dict[str, Any] = {"samples": 3, "max_new_tokens": 12, "answers_per_task": 6, "top_p": 0.95}
    return WritingSettings(prompts=str(prompts), **{**settings, **more})


def write(config: DumpConfig, settings: WritingSettings, stop_signals: StopSignals | None = None) -> WritingOutcome:
    """Write in this process, without output."""
    return run_writing(config, settings, stop_signals or StopSignals(), Heartbeat(out=io.StringIO()))


def prepared(config: DumpConfig, settings: WritingSettings) -> WritingJob:
    """Return a job whose list of prompts is written."""
    return prepare_writing(config, settings)


def lines(out: Path) -> list[dict[str, Any]]:
    """Return the responses in a folder."""
    return [json.loads(line) for line in (out / "responses.jsonl").read_text(encoding="utf-8").splitlines()]


def prompt(text: str, task_id: str = "0") -> ResponsePrompt:
    """Return a prompt of one message."""
    messages = messages_json(user_message(text))
    return ResponsePrompt(task_id=task_id, messages=messages, source="s", path="p", licence="")


def request(prompt_ids: Sequence[int], *, index: int = 0, seed: int = 0, task_id: str = "0") -> ResponseRequest:
    """Return a request for the response to some ids."""
    return ResponseRequest(prompt=prompt("x", task_id), index=index, seed=seed, prompt_ids=tuple(prompt_ids))

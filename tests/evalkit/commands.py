"""Two samples, and a call of the command, for tests of command lines and files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from click.testing import CliRunner, Result

from evalkit.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent
RIGHT = {"task_id": "HumanEval/53", "completion": "    return x + y\n"}
WRONG = {"task_id": "HumanEval/53", "completion": "    return x - y\n"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def call(*args: object, **settings) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False, **settings)


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path

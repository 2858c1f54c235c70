"""What does every command say of itself? Writes docs/cli.md from --help; tests/test_house.py holds it to that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = {
    "teacher-dump": (),
    "student-train": (),
    "evalkit": ("score", "compare", "report", "protocols", "doctor"),
    "logit-shards": ("inspect", "verify", "publish", "fetch", "hydrate", "withdraw", "merge"),
}


def reference() -> str:
    """Return the page."""
    parts = ["# Commands", "", "Made by `python scripts/cli_reference.py` from what each command says of itself."]
    for command, below in COMMANDS.items():
        for words in ((command,), *((command, name) for name in below)):
            shown = subprocess.run(
                [Path(sys.executable).with_name(command), *words[1:], "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "COLUMNS": "100", "TERM": "dumb"},
            ).stdout
            lines = (f"    {line}".rstrip() for line in shown.rstrip().splitlines())
            parts += ["", f"## {' '.join(words)}", "", *lines]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "cli.md").write_text(reference())

"""The Python lines of the README run, on the published example. test_tutorial.py and test_example.py run commands.

No counterpart: tests README.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def test_the_lines_that_read_a_cache_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    import shards\n(?:    .*\n)+", text, re.MULTILINE)
    lines = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    assert '"demo/shards/"' in lines
    names: dict[str, Any] = {}
    exec(lines.replace("demo/shards/", str(ROOT / "docs" / "examples" / "cache")), names)
    assert len(names["chunk"].head_ids) > 0
    assert len(names["cache"]) > 1

"""The documentation builds as a site, and every link in it leads somewhere.

No counterpart: tests pages and mkdocs.yml.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="the extra docs is not installed")
@pytest.mark.slow
def test_the_site_builds_strictly_and_has_every_page(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages |= {Path("quick_start.html"), Path("contributing.html"), Path("changes.html")}
    missing = sorted(str(page) for page in pages if not (tmp_path / "site" / page).is_file())
    assert missing == []
    contributing = (tmp_path / "site" / "contributing.html").read_text()
    assert 'href="architecture.html"' in contributing or 'href="evaluation.html"' in contributing
    reference = (tmp_path / "site" / "api.html").read_text()
    ours = ("Config.lora_rank", "Distillation.loss", "fused_loss")
    for name in ("shards.open", "shards.Chunk.head_probs", *(f"student_train.{name}" for name in ours)):
        assert f'id="{name}"' in reference, name
    assert ".md)" not in (tmp_path / "site" / "quick_start.html").read_text()

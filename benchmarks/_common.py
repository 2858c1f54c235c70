"""Parts that the benchmark scripts share: command lines, provenance, Markdown tables, figures and pages.

Every script runs as `python -m benchmarks.NAME` from the root of a checkout. Functions that need torch or matplotlib
import it themselves, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.runtime.command_line import quiet_torchao
from shards.runtime.machine import describe

ROOT = Path(__file__).resolve().parents[1]
"""Root of the checkout."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of the script, line breaks included."""
    quiet_torchao()
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def provenance(*, with_torch: bool = False) -> str:
    """Return where and when a figure was measured: date, commit, processor, Python and, on request, torch."""
    versions = f"Python {platform.python_version()}"
    if not with_torch:
        return f"{today()}, commit {commit()}, {describe()}, {versions}"
    import torch

    return f"{today()}, commit {commit()}, {describe(torch)}, {versions}, torch {torch.__version__}"


def commit() -> str:
    """Return the short hash of the checkout's commit, or `unknown` outside a git checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def today() -> str:
    """Return the date as YYYY-MM-DD."""
    return time.strftime("%Y-%m-%d")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without a final line break."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(interval: Mapping[str, float], *, sign: str = "") -> str:
    """Return a mean with its interval, as tables have it."""
    return f"{interval['mean']:{sign}.4f} [{interval['low']:{sign}.4f}, {interval['high']:{sign}.4f}]"


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON; make the parent directory if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_page(path: Path, text: str) -> None:
    """Write a Markdown page; make the parent directory if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")


def replace_section(path: Path, text: str, *, begin: str, end: str) -> None:
    """Replace what a page has between two marker lines.

    Raises:
        ValueError: a marker is missing.
    """
    page = path.read_text(encoding="utf-8")
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"{path}: the markers {begin} and {end} are missing")
    write_page(path, f"{before}{begin}\n{text}\n{end}{after}")


@contextmanager
def figure(
    path: Path, columns: int = 1, *, size: tuple[float, float], dpi: int = 110, share_y: bool = False
) -> Iterator[Any]:
    """Yield the axes of a new figure, an array if there are several; save the figure at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, columns, figsize=size, sharey=share_y, layout="constrained")
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=dpi)
    pyplot.close(drawing)

"""Settings of one `evalkit score`, and how a run tells what it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evalkit.errors import EvalError


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for."""

    checkpoint: str | None = None
    samples: Path | None = None
    """A file or folder of samples made elsewhere; `-` is standard input."""
    tasks: tuple[str, ...] = ("humaneval",)
    result: Path
    """Where the JSON goes; samples that are written go beside it."""
    page: Path | None = None
    """Where the HTML page goes; None for no page."""
    protocol: str | None = None
    engine: str = "auto"
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    num_samples: int | None = None
    batch_size: int | None = None
    dtype: str = "auto"
    seed: int = 0
    limit: int | None = None
    """Only the first so many problems: for a quick look, never a benchmark's score."""
    deterministic: bool = False
    strict: bool = False
    workers: int | None = None
    data_dir: Path | None = None
    sanitize: bool = False
    """Of samples made elsewhere, judge only the program in each."""
    use_cache: bool = True

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.samples is None):
            raise EvalError("expected either a checkpoint or --samples FILE; name one of them")


class Reporter(Protocol):
    """How a run tells what it does; `cli.py` prints it."""

    def note(self, text: str) -> None:
        """Say one line."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` steps."""

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Go on by so many steps and tokens."""

    def stop(self) -> None:
        """End the phase."""

"""Settings of one `evalkit score`, and the callbacks that report its progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evalkit.errors import EvalError
from evalkit.outputs.paths import beside


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Settings of one `evalkit score`."""

    checkpoint: str | None = None
    """A folder or hub id; None where `samples` is given."""
    samples: Path | None = None
    """A file or folder of samples generated elsewhere; `-` is standard input."""
    tasks: tuple[str, ...] = ("humaneval",)
    """Names of benchmarks."""
    result: Path
    """Path of the JSON result; generated samples are written beside it."""
    page: Path | None = None
    """Path of the HTML page; None for no page."""
    protocol: str | None = None
    """Name of the protocol; None for the default of each benchmark."""
    engine: str = "auto"
    max_new_tokens: int | None = None
    """Maximum length of an answer in tokens; None for the protocol's."""
    temperature: float | None = None
    top_p: float | None = None
    num_samples: int | None = None
    """Answers per problem; None for the protocol's number."""
    batch_size: int | None = None
    dtype: str = "auto"
    seed: int = 0
    limit: int | None = None
    """Score only so many problems, the first ones. Such a score is not the benchmark's score."""
    deterministic: bool = False
    strict: bool = False
    """Refuse to run unless every layer of the sandbox is on."""
    workers: int | None = None
    """Programs that are executed concurrently."""
    data_dir: Path | None = None
    sanitize: bool = False
    """Execute only the program in each of `samples`."""
    use_cache: bool = True
    """Read and write cached verdicts."""

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.samples is None):
            raise EvalError("expected either a checkpoint or --samples FILE; name one of them")

    def sample_path(self, task: str) -> Path:
        """Return the path of the samples that are generated for one benchmark."""
        return beside(self.result, ".samples.jsonl" if self.tasks == (task,) else f".{task}.samples.jsonl")


class ScoreCallbacks(Protocol):
    """Progress of a score; `evalkit/console.py` prints it."""

    def note(self, text: str) -> None:
        """Print one line."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` steps."""

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Advance by a number of steps and generated tokens."""

    def stop(self) -> None:
        """End the phase."""

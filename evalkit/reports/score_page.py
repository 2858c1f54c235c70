"""One HTML page with every problem, sample and verdict of a result.

Self-contained: no file and no address outside. Of problems with many samples a few are shown, and it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import write_text
from evalkit.samples.sample_file import Sample
from evalkit.sandbox.verdict import OUTCOMES, Verdict
from evalkit.tasks.base import Problem
from evalkit.text import visible

SHOWN_SAMPLES = 4
"""Most samples shown of one problem: passes and failures in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One problem with its samples and their verdicts."""

    problem: Problem
    pairs: tuple[tuple[Sample, Verdict], ...]

    @property
    def num_passed(self) -> int:
        return sum(verdict.passed for _, verdict in self.pairs)

    @property
    def kind(self) -> str:
        """The best that any sample came to: `pass`, else the first sample's outcome."""
        return "pass" if self.num_passed else self.pairs[0][1].outcome

    @property
    def shown(self) -> tuple[tuple[Sample, Verdict], ...]:
        passed = [pair for pair in self.pairs if pair[1].passed]
        failed = [pair for pair in self.pairs if not pair[1].passed]
        half = SHOWN_SAMPLES // 2
        few = passed[: max(half, SHOWN_SAMPLES - len(failed))]
        return tuple(few + failed[: SHOWN_SAMPLES - len(few)])


def write_page(path: Path, result: dict[str, Any], judged: Mapping[str, Sequence[Judged]]) -> None:
    """Write the page of one result; `judged` holds the problems by benchmark.

    Raises:
        EvalError: it cannot be written, or jinja2 is not installed.
    """
    source = str((result["checkpoint"] or {}).get("source") or (result["samples"] or {}).get("path"))
    name = Path(source).name if Path(source).is_absolute() else source  # where it lay is among the settings
    render(
        path,
        "score.html.j2",
        result=result,
        judged=judged,
        name=name,
        source=source,
        outcomes=OUTCOMES,
        shown=SHOWN_SAMPLES,
    )


def render(path: Path, template: str, **values: Any) -> None:
    """Fill a template of this package, with everything in it escaped (see `environment`), and write it to `path`.

    Raises:
        EvalError: it cannot be written, or jinja2 is not installed.
    """
    write_text(path, environment().get_template(template).render(**values))


def environment() -> Any:
    """Return jinja2's environment of this package's templates: HTML is escaped, and what cannot be shown.

    Raises:
        EvalError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise EvalError("the page needs jinja2, which is not installed; install 'teacherless[eval]'") from None

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
    )

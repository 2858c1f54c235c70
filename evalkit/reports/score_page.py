"""HTML page of one result, with every problem, its samples and their verdicts.

Of a problem with many samples, passes and failures are shown in turn, up to `SHOWN_SAMPLES`; the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.reports.render import render
from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import Execution
from evalkit.sandbox.verdict import OUTCOMES

SHOWN_SAMPLES = 4
"""Maximum number of samples shown of one problem."""


def write_page(path: Path, result: dict[str, Any], problems: Mapping[str, Sequence[ProblemResult]]) -> None:
    """Write the page of one result.

    Args:
        path: The HTML file.
        result: The JSON result.
        problems: Problems with their executed samples, by benchmark.

    Raises:
        EvalError: The page cannot be written, or jinja2 is not installed.
    """
    source = str((result["checkpoint"] or {}).get("source") or (result["samples"] or {}).get("path"))
    render(
        path,
        "score.html.j2",
        result=result,
        problems_by_benchmark=problems,
        name=Path(source).name if Path(source).is_absolute() else source,  # the settings show the full path
        source=source,
        outcomes=OUTCOMES,
        outcome_of=outcome_of,
        shown_executions=shown_executions,
        page_name=lambda page: Path(page).name,
    )


def outcome_of(problem: ProblemResult) -> str:
    """Return `pass` if any sample passed, else the outcome of the first sample."""
    return "pass" if problem.num_passed else problem.executions[0].verdict.outcome


def shown_executions(problem: ProblemResult) -> tuple[Execution, ...]:
    """Return the executions to show: passes and failures, half of each where there are enough."""
    passed = [execution for execution in problem.executions if execution.verdict.passed]
    failed = [execution for execution in problem.executions if not execution.verdict.passed]
    shown = passed[: max(SHOWN_SAMPLES // 2, SHOWN_SAMPLES - len(failed))]
    return tuple(shown + failed[: SHOWN_SAMPLES - len(shown)])
